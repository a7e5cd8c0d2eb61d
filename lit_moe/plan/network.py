"""What a plan knows of a network, of ours or of transformers: sizes of its parts, and what a training step keeps.

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
from lit_moe.nn import Decoder, DecoderConfig, FeedForward, MoEFeedForward
from lit_moe.nn.attention import Attention
from lit_moe.parallel.sharding import in_float32
from lit_moe.plan.layout import Layout


@dataclass(frozen=True)
class Weights:
    """Numbers of parameters of a part: all, and of these the routed experts', and those sent in float32 only."""

    whole: int
    routed: int = 0
    exact: int = 0

    @classmethod
    def of(cls, own: set[nn.Parameter], routed: set[nn.Parameter], exact: set[nn.Parameter]) -> Weights:
        """Count parameters.

        Args:
            own: The parameters of the part.
            routed: The parameters of all routed experts.
            exact: All parameters that are never sent in 16 bits.
        """
        return cls(*(sum(parameter.numel() for parameter in some) for some in (own, own & routed, own & exact)))

    def on_one_device(self, layout: Layout) -> float:
        """Return the number of parameters that a device needs to compute: all but the other devices' experts."""
        return self.whole - self.routed + self.routed / layout.expert_parallel


@dataclass(frozen=True)
class Part:
    """A part whose weights are gathered together: a layer, or all that is outside the layers.

    Args:
        weights: All parameters.
        trained: The parameters that are not frozen.
        activations: Bytes that its forward pass keeps for the backward pass.
        working: Bytes that its backward pass needs besides, such as gradients of activations.
        copies: Bytes of weights that autocast keeps a second time in 16 bits for the backward pass.
    """

    weights: Weights
    trained: Weights
    activations: float = 0.0
    working: float = 0.0
    copies: float = 0.0

    def gathered(self, layout: Layout) -> float:
        """Return the bytes of the gathered weights that a device needs to compute."""
        exact = self.weights.exact
        return (self.weights.on_one_device(layout) - exact) * layout.stream + exact * layout.stored


@dataclass(frozen=True)
class Network:
    """What a plan knows of a network for one layout.

    Args:
        parts: Numbers of parameters by kind: all, and those that one token passes through, None where not known.
        layers: The layers, in order.
        outer: All outside the layers.
        vocab_size: Number of logits of a position.
        width: Numbers of a token's hidden state.
        head: Parameters of the output layer.
        recompute: Whether activations of layers are recomputed in the backward pass.
        flops: Operations of one token's forward pass; None where not known.
        again: Operations of a token that are done again in the backward pass.
        experts: Routed experts that a token uses, over all layers; None where not known.
        shared: Bytes that all layers use and keep until the end of the backward pass, such as masks.
        knows_memory: Whether the bytes of parts are known.
        unknown: Sentences on what is not known.
    """

    parts: dict[str, tuple[int, int | None]]
    layers: list[Part]
    outer: Part
    vocab_size: int
    width: int
    head: int
    recompute: bool
    flops: float | None
    again: float
    experts: float | None
    shared: float = 0.0
    knows_memory: bool = True
    unknown: tuple[str, ...] = ()

    def trained(self) -> int:
        """Return the number of parameters that are not frozen."""
        return sum(part.trained.whole for part in (*self.layers, self.outer))

    def in_chunks(self, layout: Layout) -> bool:
        """Tell whether `token_nll` makes the logits of a micro-batch chunk by chunk, and again in the backward pass."""
        return layout.tokens * self.vocab_size > MAX_LOGITS


def of_decoder(decoder: Decoder, layout: Layout) -> Network:
    """Return what a plan knows of lit_moe's own decoder.

    Activation checkpointing adds a forward pass of the layers, without the last product of a dense feed-forward or of
    shared experts without a gate, which nothing in the backward pass needs. Gradients of activations are 8 D bytes per
    token, and 2 I m (dense) or 2 D m per chosen expert. The final norm and the output layer keep (8 + b) D per token.

    Args:
        decoder: The network, which may be on the meta device.
        layout: Division of a training step over devices.

    Raises:
        UserError: If the experts cannot be divided.
    """
    config, moe = decoder.config, decoder.config.moe
    if moe is not None and moe.n_experts % layout.expert_parallel:
        raise UserError(
            f"n_experts is {moe.n_experts}, but {layout.expert_parallel} devices are to share them; give a number that "
            "divides it."
        )
    routed = {weight for layer in mixtures(decoder) for weight in _routed(layer)}
    sizes = part_sizes(decoder, decoder.layers, routed, layout)
    kept, width = layer_activations(config, layout), config.d_ff if moe is None else moe.top_k * config.d_model
    working = layout.tokens * (8 * config.d_model + 2 * width * layout.operand)
    forward, head = decoder.flops_per_token(layout.sequence_length), config.vocab_size * config.d_model
    last = config.d_ff if moe is None else 0 if moe.shared_gate else moe.n_shared * moe.expert_width
    layers = forward - 2 * head - 2 * config.n_layers * config.d_model * last
    return Network(
        parts=parameters_by_part(decoder),
        layers=[
            Part(*size, kept, working, copies=size[0].on_one_device(layout) * layout.operand if layout.casts else 0.0)
            for size in sizes[:-1]
        ],
        outer=Part(*sizes[-1], activations=layout.tokens * config.d_model * (8 + layout.stream)),
        vocab_size=config.vocab_size,
        width=config.d_model,
        head=head,
        recompute=config.activation_checkpointing,
        flops=forward,
        again=layers if config.activation_checkpointing else 0,
        experts=0 if moe is None else config.n_layers * moe.top_k,
    )


def part_sizes(
    network: nn.Module, layers: Iterable[nn.Module], routed: set[nn.Parameter], layout: Layout
) -> list[tuple[Weights, Weights]]:
    """Return the numbers of parameters of each layer and of the rest: all, and those that are not frozen.

    Args:
        network: The network, which may be on the meta device.
        layers: Its layers.
        routed: The parameters of all routed experts.
        layout: Division of a training step over devices.
    """
    exact = {weight for module in in_float32(network) for weight in module.parameters()} if layout.narrow else set()
    every = set(network.parameters())
    owned = [set(layer.parameters()) for layer in layers]
    owned.append(every.difference(*owned))
    return [
        (Weights.of(own, routed, exact), Weights.of({one for one in own if one.requires_grad}, routed, exact))
        for own in owned
    ]


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
    norms = 2 * (8 * D if config.norm == "rmsnorm" else D * layout.stream)
    attention = (3 if layout.casts else 1) * D * m + 2 * (queries + keys) * m + 4 * config.n_heads
    if config.qk_norm is not None:
        attention += 8 * (queries + keys)
    if config.clip_qkv is not None:
        attention += (queries + 2 * keys) * m
    entry = (2 if layout.casts else 1) * D * m
    if moe is None:
        return layout.tokens * (norms + attention + entry + 4 * config.d_ff * m)
    grouped = moe.backend == "grouped_mm" or (moe.backend == "auto" and layout.gpu and layout.operand == 2)
    expert = (D + (5 if grouped else 2) * moe.expert_width) * m + 28
    mixture = 4 * D + 8 * moe.n_experts + moe.top_k * (8 + expert)
    if moe.n_shared:
        mixture += (entry if m == 2 else 0) + 4 * moe.n_shared * moe.expert_width * m + moe.shared_gate * D * m
    return layout.tokens * (norms + attention + mixture)


def parameters_by_part(decoder: Decoder) -> dict[str, tuple[int, int | None]]:
    """Return the parameters of each part: all, and those that one token passes through.

    Args:
        decoder: The network, which may be on the meta device.

    Returns:
        Pairs of counts by part; parts that the decoder does not have are left out.
    """
    layers, config = mixtures(decoder), decoder.config.moe
    attention = [module for module in decoder.modules() if isinstance(module, Attention)]
    feed_forward = [] if config else [module for module in decoder.modules() if isinstance(module, FeedForward)]
    share = 1.0 if config is None else config.top_k / config.n_experts
    whole = {
        "embedding": count([decoder.embedding]),
        "attention": count(attention),
        "feed-forward": count(feed_forward),
        "routers": count(part for layer in layers for part in (layer.gate, layer.router, _added_gate(layer))),
        "routed experts": sum(weight.numel() for layer in layers for weight in _routed(layer)),
        "shared experts": count(part for layer in layers for part in (layer.shared, layer.shared_gate)),
        "output layer": count([decoder.output]),
    }
    whole["norms"] = count([decoder]) - sum(whole.values())
    return {
        part: (number, round(number * share) if part == "routed experts" else number)
        for part, number in whole.items()
        if number
    }


def count(modules: Iterable[nn.Module | None]) -> int:
    """Return the number of parameters of all modules; None counts as 0."""
    return sum(parameter.numel() for module in modules if module is not None for parameter in module.parameters())


def mixtures(model: nn.Module) -> list[MoEFeedForward]:
    """Return the mixture-of-experts layers of ours in a model."""
    return [module for module in model.modules() if isinstance(module, MoEFeedForward)]


def _added_gate(layer: MoEFeedForward) -> nn.Module | None:
    return None if layer.added is None else layer.added.gate


def _routed(layer: MoEFeedForward) -> list[nn.Parameter]:
    """Return the parameters of a layer's routed experts, those that it was given later included."""
    if layer.added is None:
        return list(layer.experts.parameters())
    gate = set(layer.added.gate.parameters())
    return [*layer.experts.parameters(), *(weight for weight in layer.added.parameters() if weight not in gate)]
