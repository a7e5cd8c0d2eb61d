"""What a plan knows of a model of transformers, from its config alone."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from torch import nn

from lit_core.errors import UserError
from lit_moe.nn import HFDecoder
from lit_moe.nn.hf_flops import TokenCounts, UnknownFlops, counts_per_token, largest_list, routed_experts
from lit_moe.nn.hf_gates import recorded_gates
from lit_moe.plan.hf_activations import Activations, Kept, UnknownMemory, activations
from lit_moe.plan.layout import Layout
from lit_moe.plan.network import Network, Part, part_sizes

#: Kinds of parts by the names of modules, without norms; the outermost module whose name fits one counts.
_KINDS = {
    "embedding": re.compile("embed|wte"),
    "attention": re.compile("attn|attention|mamba|mixer|conv$"),
    "feed-forward": re.compile("mlp|ffn|feed_?forward|moe"),
}


_ORDER = ("embedding", "attention", "feed-forward", "routers", "routed experts", "shared experts", "output layer")


def of_transformers(decoder: HFDecoder, layout: Layout) -> Network:
    """Return what a plan knows of a model of transformers.

    Operations are counted in a forward pass on the meta device, memory in a training step without values; see
    `lit_moe.nn.hf_flops` and `lit_moe.plan.hf_activations`. What depends on the tokens themselves is not known.

    Args:
        decoder: The network, whose parameters may be on the meta device.
        layout: Division of a training step over devices.

    Raises:
        UserError: If experts are to be divided, but they are not stacked, or not divisible.
    """
    model, unknown = decoder.model, []
    experts, gates = routed_experts(model), {*recorded_gates(model)} | decoder.watched.keys()
    _check_division(decoder, list(experts.values()), layout)
    counts: TokenCounts | None = None
    try:
        counts = counts_per_token(decoder.twin(), layout.sequence_length)
    except UnknownFlops as reason:
        unknown.append(f"FLOPs and active parameters are not known: {reason}.")
    used = counts if counts is not None and (counts.experts or not gates) else None
    if used is None and counts is not None:
        unknown.append("Active parameters are not known: the experts are not stacked weights of a module of their own.")
    if used is None and layout.expert_parallel > 1:
        unknown.append("Traffic is not known: how many experts a token uses is not known.")
    kept: Activations | None = None
    layers, exact = largest_list(model), {name.removeprefix("model.") for name in decoder.exact_buffers}
    try:
        kept = activations(lambda: decoder.twin("cpu"), exact, not decoder.divides, layout)
        if not layers or len(kept.layers) != len(layers):
            raise UnknownMemory(f"{len(kept.layers)} layers are called, but the longest list has {len(layers)}")
    except UnknownMemory as reason:
        unknown.append(f"Memory is not known: {reason}.")
        kept = None
    routed = {weight for module in experts.values() for weight in module.parameters()}
    sizes = part_sizes(decoder, layers, routed, layout)
    each = [Kept(0, 0, 0)] * len(layers) if kept is None else kept.layers
    output = model.get_output_embeddings()
    head = 0 if output is None else output.weight.numel()
    recompute = decoder.recomputes
    return Network(
        parts=_parts(model, experts, gates, used),
        layers=[Part(*size, *one) for size, one in zip(sizes[:-1], each, strict=True)],
        outer=Part(*sizes[-1], activations=0 if kept is None else kept.outer),
        vocab_size=decoder.config.vocab_size,
        width=decoder.config.hidden_size,
        head=head,
        recompute=recompute,
        flops=None if counts is None else counts.flops,
        again=0 if counts is None or not recompute else counts.flops - 2 * head,
        experts=None if used is None else used.experts,
        shared=0 if kept is None else kept.shared,
        knows_memory=kept is not None,
        unknown=tuple(unknown),
    )


def _check_division(decoder: HFDecoder, experts: list[nn.Module], layout: Layout) -> None:
    devices = layout.expert_parallel
    if devices == 1:
        return
    sizes = {len(weight) for module in experts for weight in module.parameters() if weight.dim() == 3}
    if not sizes:
        raise UserError(
            f"`expert_parallel` is {devices}, but {type(decoder.model).__name__} has no stacked experts that could be "
            "divided; set it to 1."
        )
    for size in sizes:
        if size % devices:
            raise UserError(
                f"`expert_parallel` is {devices}, but a layer's {size} experts can't be divided evenly among {devices} "
                f"devices; set it to a divisor of {size}."
            )


def _parts(
    model: Any, experts: dict[str, nn.Module], gates: set[str], used: TokenCounts | None
) -> dict[str, tuple[int, int | None]]:
    """Return the parameters by kind: all, and those that one token passes through, None where not known."""
    named = {model.get_input_embeddings(): "embedding", model.get_output_embeddings(): "output layer"}
    named |= {model.get_submodule(name): "routers" for name in gates} | dict.fromkeys(
        experts.values(), "routed experts"
    )
    modules, whole = dict(model.named_modules()), Counter[str]()
    for name, parameter in model.named_parameters():
        whole[_kind(name.split(".")[:-1], modules, named)] += parameter.numel()
    parts: dict[str, tuple[int, int | None]] = {
        kind: (whole[kind], whole[kind]) for kind in (*_ORDER, *sorted(whole.keys() - set(_ORDER))) if whole[kind]
    }
    if gates or experts:
        several = "routed experts" if experts else "feed-forward"
        parts[several] = whole[several], None if used is None else round(used.expert_parameters)
    return parts


def _kind(path: list[str], modules: dict[str, nn.Module], named: dict[nn.Module | None, str]) -> str:
    """Return the kind of the parameters of a module, given its name by parts."""
    for end in range(1, len(path) + 1):
        if kind := named.get(modules[".".join(path[:end])]):
            return kind
    if any("shared" in part for part in path):
        return "shared experts"
    for end, part in enumerate(path, 1):
        said = type(modules[".".join(path[:end])]).__name__.lower() if part == "mixer" else part
        for kind, pattern in _KINDS.items():
            if pattern.search(said) and "norm" not in said:
                return kind
    return "norms" if any("norm" in part for part in path) else "others"
