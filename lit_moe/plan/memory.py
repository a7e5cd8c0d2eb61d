"""Memory of a device during a training step of a language model, by part, computed from shapes."""

from __future__ import annotations

from lit_moe.functional.token_nll import MAX_LOGITS
from lit_moe.plan.layout import Layout
from lit_moe.plan.network import Network


class StepMemory:
    """Bytes on one device, by part, at the three moments of a training step that can have the peak.

    From the second micro-batch of an optimizer step on, all gradients exist at each moment. Each of n devices holds an
    n-th of what is sharded; where gradients are summed once per optimizer step, all of those of earlier micro-batches
    in float32. Where autocast casts weights, they are kept a second time in 16 bits for the backward pass.
    Communication is the memory for the parts of other devices: with DDP, buckets as large as the gradients; with FSDP2,
    the whole weights of two layers and of all outside the layers, and in the backward pass their whole gradients; with
    expert parallelism, the tokens sent and received. Frozen weights have no gradients and no optimizer states;
    activations are counted as if all were trained.

    Args:
        network: What is known of the network for the layout.
        layout: Division of a training step over devices.
        states: Bytes of the optimizer's states per trained weight.
        workspace: Bytes that the optimizer needs while it steps, before sharding.
    """

    def __init__(self, network: Network, layout: Layout, states: float, workspace: int) -> None:
        self.network, self.layout = network, layout
        self.layers, self.outer = network.layers, network.outer
        shards, every = layout.devices if layout.sharded else 1, [*network.layers, network.outer]
        self.weights = sum(part.weights.whole for part in every) * layout.stored / shards
        self.of_layer = [layer.trained.whole * layout.stored / shards for layer in self.layers]  # gradients
        self.of_outer = self.outer.trained.whole * layout.stored / shards
        self.gradients = sum(self.of_layer) + self.of_outer
        self.states, self.workspace = self.gradients / layout.stored * states, workspace / shards
        self.entry = layout.tokens * network.width * layout.stream
        self.exchange = [0.0, 0.0]  # at the loss, in the backward pass
        whole = [part.trained.on_one_device(layout) * layout.reduced for part in every]
        if layout.sharded:
            gathered = self.outer.gathered(layout) + 2 * max(layer.gathered(layout) for layer in self.layers)
            narrow = layout.stream / layout.reduced  # of gradients before they are reduced
            self.exchange = [gathered, gathered + whole[-1] * narrow + max(whole[:-1]) * (narrow + 1)]
        elif layout.devices > 1:
            self.exchange = [self.gradients, self.gradients]
        if layout.expert_parallel > 1 and network.experts:
            mixtures = sum(layer.weights.routed > 0 for layer in self.layers)
            rows = network.experts / mixtures * layout.tokens
            self.exchange[1] += 2 * rows * network.width * layout.operand
        self._former = 0.0  # gradients of earlier micro-batches
        if layout.accumulation > 1:
            self._former = sum(whole) if layout.sharded and layout.reduce_once else self.gradients

    def loss(self) -> dict[str, float]:
        """Memory when the logits get their gradient: all layers keep activations, or with checkpointing their inputs.

        A logit needs 12 bytes, for its log-probability and two gradients in float32; there are as many as tokens times
        the vocabulary, or as `token_nll` makes at once, whose output layer then has two gradients at a time.
        """
        network, layout = self.network, self.layout
        chunked, size = network.in_chunks(layout), network.vocab_size
        kept = len(self.layers) * self.entry if network.recompute else sum(one.activations for one in self.layers)
        copies = 0.0 if network.recompute else sum(layer.copies for layer in self.layers)
        return self._parts(
            self._former + (2 * network.head * layout.stored if chunked else 0),
            network.shared + kept + self.outer.activations,
            copies + (2 * network.head if layout.casts else 0),
            self.exchange[0],
            logits=12 * (max(MAX_LOGITS, size) if chunked else layout.tokens * size),
        )

    def backward(self) -> dict[str, float]:
        """Peak memory of the backward pass: the largest of its values at each of the layers.

        The layers after the current one have their gradients, the layers before it their activations. With
        checkpointing, the layers before it have their inputs, and its own activations are recomputed. Gradients of
        activations are added.
        """

        def of_layer(index: int) -> dict[str, float]:
            layer, left = self.layers[index], self.layers[: index + 1]
            kept, copies = sum(one.activations for one in left), sum(one.copies for one in left)
            if self.network.recompute:
                kept, copies = len(left) * self.entry + layer.activations, layer.copies
            former = self._former + self.of_layer[index]
            return self._parts(
                former if self._former else self.of_outer + sum(self.of_layer[index:]),
                self.network.shared + kept + layer.working,
                copies,
                self.exchange[1],
            )

        return max(map(of_layer, range(len(self.layers))), key=total)

    def optimizer(self) -> dict[str, float]:
        """Memory when the optimizer steps: all gradients and no activations."""
        buckets = 0.0 if self.layout.sharded else self.exchange[0]
        return {**self._parts(self.gradients, 0, 0, buckets), "optimizer workspace": self.workspace}

    @property
    def moments(self) -> dict[str, dict[str, float]]:
        """The three moments by name, each with the bytes of each part."""
        return {"loss": self.loss(), "backward pass": self.backward(), "optimizer step": self.optimizer()}

    def _parts(
        self, gradients: float, activations: float, copies: float, communication: float, logits: float = 0.0
    ) -> dict[str, float]:
        return {
            "weights": self.weights,
            "gradients": gradients,
            "optimizer states": self.states,
            "activations": activations,
            "weights in 16 bits": copies,
            "logits": logits,
            "communication": communication,
        }


def total(parts: dict[str, float]) -> float:
    """Return the sum of the parts."""
    return sum(parts.values())
