"""Memory of a device during a training step of a decoder, by part, computed from shapes.

Symbols: T tokens of a micro-batch on one device, D model width, V vocabulary, I hidden width of a feed-forward layer or
of one expert, E experts, k experts per token, H query heads, Q and K widths of all query heads and of all key heads;
b bytes of a number of the residual stream, m bytes of an operand of a matrix product.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from lit_core.errors import UserError
from lit_moe.functional.token_nll import MAX_LOGITS
from lit_moe.nn import Decoder, DecoderConfig, MoEFeedForward

#: Bytes of a stored weight and of an operand of a matrix product, by Lightning's name of the precision.
PRECISIONS = {"32-true": (4, 4), "bf16-mixed": (4, 2), "16-mixed": (4, 2), "bf16-true": (2, 2)}
#: Bytes of a gradient that FSDP2 reduces, and of an optimizer's moment: float32 in every precision.
FLOAT32 = 4


@dataclass(frozen=True)
class Layout:
    """Division of a training step over devices, and the work of one device.

    Args:
        devices: Number of devices.
        sharded: Whether weights, gradients and optimizer states are divided among the devices, as FSDP2 does.
        expert_parallel: Number of devices among which one set of experts is divided; above 1 only if sharded.
        precision: Lightning's name of the number format, a key of `PRECISIONS`.
        micro_batch_size: Sequences per device and forward pass.
        sequence_length: Tokens per sequence.
        accumulation: Micro-batches per optimizer step.
        gpu: Whether the devices are GPUs, whose experts and optimizer have other implementations.
        reduce_once: Whether gradients are reduced once per optimizer step, not in each micro-batch; only if sharded.
    """

    devices: int = 1
    sharded: bool = False
    expert_parallel: int = 1
    precision: str = "32-true"
    micro_batch_size: int = 1
    sequence_length: int = 512
    accumulation: int = 1
    gpu: bool = False
    reduce_once: bool = False

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UserError(
                f"`trainer.precision` is {self.precision}, but a plan knows {', '.join(PRECISIONS)}; give one of them."
            )

    def __str__(self) -> str:
        how = "" if self.devices == 1 else " under FSDP2" if self.sharded else " under DDP"
        experts = f", {self.expert_parallel} of them to a set of experts" if self.expert_parallel > 1 else ""
        batch = f"{self.accumulation} × {self.micro_batch_size} sequences of {self.sequence_length} tokens each"
        return f"{self.devices} device{'s' * (self.devices > 1)}{how}{experts}, {batch}, {self.precision}"

    @property
    def tokens(self) -> int:
        """Tokens of a micro-batch on one device."""
        return self.micro_batch_size * self.sequence_length

    @property
    def step_tokens(self) -> int:
        """Tokens of an optimizer step over all devices."""
        return self.tokens * self.accumulation * self.devices

    @property
    def stored(self) -> int:
        """Bytes of a stored weight."""
        return PRECISIONS[self.precision][0]

    @property
    def operand(self) -> int:
        """Bytes of an operand of a matrix product."""
        return PRECISIONS[self.precision][1]

    @property
    def used(self) -> int:
        """Bytes of a weight as a layer has it, of its gradient and of a number of the residual stream.

        FSDP2 gathers weights in the format of the operands.
        """
        return self.operand if self.sharded else self.stored

    @property
    def mixed(self) -> bool:
        """Whether operands are copies of weights and activations in a narrower format."""
        return self.used != self.operand


def layer_activations(config: DecoderConfig, layout: Layout) -> int:
    """Return the bytes of activations that one layer keeps for its backward pass.

    Per token, they are the sum of

    - two norms: 8 D each, the input and the normalised input in float32 (a fused kernel keeps less); bD for LayerNorm
    - attention: D m of input (three copies in mixed precision), 2 (Q + K) m for queries, keys, values and output,
      4 H for the soft-max; 8 (Q + K) more where queries and keys are normalised, (Q + 2 K) m where they are clipped
    - a dense feed-forward: D m of input (two copies in mixed precision), 4 I m for gate, activated gate, up and product
    - a mixture: 4 D of float32 router input; 8 E + 8 k for logits, probabilities and choice; per chosen expert
      (D + 2 I) m + 28, and 3 I m more with torch's grouped product; shared experts like a dense layer, but in float32
      their input is that of the router, and D m more if they are gated

    Args:
        config: Shape of the decoder.
        layout: Division of a training step over devices. Experts are assumed to be evenly loaded.
    """
    D, m, moe = config.d_model, layout.operand, config.moe
    queries, keys = config.n_heads * config.head_width, config.kv_heads * config.head_width
    norms = 2 * (8 * D if config.norm == "rmsnorm" else D * layout.used)
    attention = (3 if layout.mixed else 1) * D * m + 2 * (queries + keys) * m + 4 * config.n_heads
    if config.qk_norm is not None:
        attention += 8 * (queries + keys)
    if config.clip_qkv is not None:
        attention += (queries + 2 * keys) * m
    entry = (2 if layout.mixed else 1) * D * m
    if moe is None:
        return layout.tokens * (norms + attention + entry + 4 * config.d_ff * m)
    grouped = moe.backend == "grouped_mm" or (moe.backend == "auto" and layout.gpu and layout.operand == 2)
    expert = (D + (5 if grouped else 2) * moe.expert_width) * m + 28
    mixture = 4 * D + 8 * moe.n_experts + moe.top_k * (8 + expert)
    if moe.n_shared:
        mixture += (entry if m == 2 else 0) + 4 * moe.n_shared * moe.expert_width * m + moe.shared_gate * D * m
    return layout.tokens * (norms + attention + mixture)


class StepMemory:
    """Bytes on one device, by part, at the three moments of a training step that can have the peak.

    From the second micro-batch of an optimizer step on, all gradients exist at each moment. Each of n devices holds an
    n-th of what is sharded. In mixed precision, the weights of matrix products are kept a second time in 16 bits for
    the backward pass. Communication is the memory for the parts of other devices: with DDP, buckets as large as the
    gradients; with FSDP2, the whole weights of embedding, output and two layers, and in the backward pass the whole
    gradients of two layers and of the outer weights; with expert parallelism, the tokens sent and received. Frozen
    weights have no gradients and no optimizer states; activations are counted as if all were trained.

    Args:
        decoder: The network, which may be on the meta device.
        layout: Division of a training step over devices.
        states: Bytes of the optimizer's states per trained weight.
        workspace: Bytes that the optimizer needs while it steps, before sharding.
    """

    def __init__(self, decoder: Decoder, layout: Layout, states: float, workspace: int) -> None:
        self.config, self.layout = decoder.config, layout
        shards = layout.devices if layout.sharded else 1
        sizes, trained = ([_size(layer, layout, only) for layer in decoder.layers] for only in (False, True))
        outer, outer_trained = (count([decoder], only) - count(decoder.layers, only) for only in (False, True))
        self.weights = (sum(layer for layer, _ in sizes) + outer) * layout.stored / shards
        self.of_layer = [layer * layout.stored / shards for layer, _ in trained]  # gradients
        self.of_outer = outer_trained * layout.stored / shards
        self.gradients = sum(self.of_layer) + self.of_outer
        self.whole_gradients = (sum(whole for _, whole in trained) + outer_trained) * FLOAT32
        self.states, self.workspace = self.gradients / layout.stored * states, workspace / shards
        self.head = self.config.vocab_size * self.config.d_model
        self.entry = layout.tokens * self.config.d_model * layout.used
        self.activations = layer_activations(self.config, layout)
        whole, whole_trained = (max(gathered for _, gathered in one) for one in (sizes, trained))
        self.copies = 2 * whole if layout.mixed else 0.0
        self.exchange = [0.0, 0.0]  # at the loss, in the backward pass
        if layout.sharded:
            gathered = (outer + 2 * whole) * layout.used
            reduced = (outer_trained + whole_trained) * layout.used + whole_trained * FLOAT32
            self.exchange = [gathered, gathered + reduced]
        elif layout.devices > 1:
            self.exchange = [self.gradients, self.gradients]
        if layout.expert_parallel > 1 and self.config.moe is not None:
            self.exchange[1] += 2 * self.config.moe.top_k * layout.tokens * self.config.d_model * layout.operand

    def loss(self) -> dict[str, float]:
        """Memory when the logits get their gradient: all layers keep activations, or with checkpointing their inputs.

        A logit needs 12 bytes, for its log-probability and two gradients in float32; there are T V of them, or as many
        as `token_nll` makes at once, whose output layer then has two gradients at a time. The final norm and the output
        layer keep (8 + b) D per token.
        """
        config, layout = self.config, self.layout
        chunked = layout.tokens * config.vocab_size > MAX_LOGITS
        recompute, n_layers = config.activation_checkpointing, config.n_layers
        end = layout.tokens * config.d_model * (8 + layout.used)
        return self._parts(
            self._former + (2 * self.head * layout.used if chunked else 0),
            n_layers * (self.entry if recompute else self.activations) + end,
            (0 if recompute else n_layers * self.copies) + (2 * self.head if layout.mixed else 0),
            self.exchange[0],
            logits=12 * (max(MAX_LOGITS, config.vocab_size) if chunked else layout.tokens * config.vocab_size),
        )

    def backward(self) -> dict[str, float]:
        """Peak memory of the backward pass: the larger of its values at the last and at the first layer.

        The layers after the current one have their gradients, the layers before it their activations. With
        checkpointing, the layers before it have their inputs, and its own activations are recomputed. Gradients of
        activations are added: 8 D bytes per token, and 2 I m (dense) or 2 D m per chosen expert.
        """
        config, layout = self.config, self.layout
        width = config.d_ff if config.moe is None else config.moe.top_k * config.d_model
        working = layout.tokens * (8 * config.d_model + 2 * width * layout.operand)

        def of_layer(index: int) -> dict[str, float]:
            recompute, left = config.activation_checkpointing, index + 1
            former = self._former + self.of_layer[index]
            return self._parts(
                former if self._former else self.of_outer + sum(self.of_layer[index:]),
                (left * self.entry + self.activations if recompute else left * self.activations) + working,
                self.copies * (1 if recompute else left),
                self.exchange[1],
            )

        return max((of_layer(0), of_layer(config.n_layers - 1)), key=total)

    def optimizer(self) -> dict[str, float]:
        """Memory when the optimizer steps: all gradients and no activations."""
        buckets = 0.0 if self.layout.sharded else self.exchange[0]
        return {**self._parts(self.gradients, 0, 0, buckets), "optimizer workspace": self.workspace}

    @property
    def moments(self) -> dict[str, dict[str, float]]:
        """The three moments by name, each with the bytes of each part."""
        return {"loss": self.loss(), "backward pass": self.backward(), "optimizer step": self.optimizer()}

    @property
    def _former(self) -> float:
        """Gradients of earlier micro-batches."""
        if self.layout.accumulation == 1:
            return 0.0
        return self.whole_gradients if self.layout.reduce_once else self.gradients

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


def count(modules: Iterable[nn.Module | None], trained: bool = False) -> int:
    """Return the number of parameters of all modules; None counts as 0.

    Args:
        modules: The modules.
        trained: Whether frozen parameters are left out.
    """
    parameters = (parameter for module in modules if module is not None for parameter in module.parameters())
    return sum(parameter.numel() for parameter in parameters if parameter.requires_grad or not trained)


def _size(layer: nn.Module, layout: Layout, trained: bool) -> tuple[float, float]:
    """Return the weights of a layer of which a device holds a part, all together, and those that it needs to run it."""
    routed = count((mixture.experts for mixture in mixtures(layer)), trained)
    every = count([layer], trained)
    return every, every - routed + routed / layout.expert_parallel


def mixtures(model: nn.Module) -> list[MoEFeedForward]:
    """Return the mixture-of-experts layers of ours in a model."""
    return [module for module in model.modules() if isinstance(module, MoEFeedForward)]
