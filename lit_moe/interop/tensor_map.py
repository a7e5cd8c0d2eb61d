"""Which tensors of a Hugging Face checkpoint make up each of our tensors, and where in it they lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lit_moe.interop.families import Family

#: Their names by ours, inside a layer.
_ATTENTION = {
    "attention_norm.weight": "input_layernorm.weight",
    "feed_forward_norm.weight": "post_attention_layernorm.weight",
    "attention.out.weight": "self_attn.o_proj.weight",
    "attention.q_norm.weight": "self_attn.q_norm.weight",
    "attention.k_norm.weight": "self_attn.k_norm.weight",
    **{f"attention.{x}.{kind}": f"self_attn.{x}_proj.{kind}" for x in "qkv" for kind in ("weight", "bias")},
}
_OUTSIDE = {
    "embedding.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


@dataclass(frozen=True)
class Piece:
    """A tensor of a Hugging Face checkpoint and the region of our tensor that it fills.

    Args:
        name: Name in the Hugging Face checkpoint.
        offset: Start of the region in our tensor, per dimension.
        size: Size of the region in our tensor, per dimension.
        shape: Shape in the Hugging Face checkpoint, without the dimension of the experts.
    """

    name: str
    offset: tuple[int, ...]
    size: tuple[int, ...]
    shape: tuple[int, ...]

    def take(self, ours: Tensor) -> Tensor:
        """Return the region of our tensor, in the shape of the Hugging Face checkpoint."""
        region = tuple(slice(start, start + size) for start, size in zip(self.offset, self.size, strict=True))
        return ours[region].reshape(self.shape)


Read = Callable[[str, tuple[slice, ...]], Tensor]
"""Reads a part of a named tensor, given a slice per dimension."""


def fill(target: Tensor, offset: Sequence[int], pieces: Sequence[Piece], read: Read) -> None:
    """Fill one of our tensors, or the part that a device holds, in place; only the needed parts are read.

    Args:
        target: The tensor, or the part, to fill.
        offset: Start of the part in the whole tensor, per dimension; zeros for the whole.
        pieces: The pieces that make up the whole tensor.
        read: Reads a part of a piece.
    """
    for piece in pieces:
        sides = list(zip(piece.offset, piece.size, offset, target.shape, strict=True))
        bounds = [(max(start, low), min(start + size, low + width)) for start, size, low, width in sides]
        if any(low >= high for low, high in bounds):
            continue
        inside = [slice(low - start, high - start) for (low, high), start in zip(bounds, piece.offset, strict=True)]
        region = tuple(slice(low - start, high - start) for (low, high), start in zip(bounds, offset, strict=True))
        with torch.no_grad():
            target[region] = read(piece.name, tuple(inside[-len(piece.shape) :]))


def pieces_of(decoder: nn.Module, family: Family) -> dict[str, list[Piece]]:
    """Return the pieces of each tensor of a decoder by name. Tensors of routers are left out: no family has them.

    Args:
        decoder: A `Decoder`, which may be on the meta device.
        family: The architecture whose names the pieces get.
    """
    tensors = {name: tensor for name, tensor in decoder.state_dict().items() if ".feed_forward.router." not in name}
    return {name: _pieces(name, tuple(tensor.shape), family) for name, tensor in tensors.items()}


def _pieces(name: str, shape: tuple[int, ...], family: Family) -> list[Piece]:
    def whole(theirs: str) -> list[Piece]:
        return [Piece(theirs, (0,) * len(shape), shape, shape)]

    if name in _OUTSIDE:
        return whole(_OUTSIDE[name])
    _, index, inside = name.split(".", 2)
    layer = f"model.layers.{index}."
    if inside in _ATTENTION:
        return whole(layer + _ATTENTION[inside])
    if family.mixture is None:
        return whole(f"{layer}mlp.{_projection(inside)}")
    block = f"{layer}{family.mixture.block}."
    if inside == "feed_forward.gate.weight":
        return whole(f"{block}gate.weight")
    if inside == "feed_forward.shared_gate.weight":
        return whole(f"{block}shared_expert_gate.weight")
    if inside.startswith("feed_forward.shared."):
        return whole(f"{block}shared_expert.{_projection(inside)}")
    gate, up, down = family.mixture.parts
    if inside == "feed_forward.experts.down":
        size = (1, *shape[1:])
        return [Piece(f"{block}experts.{e}.{down}.weight", (e, 0, 0), size, shape[1:]) for e in range(shape[0])]
    assert inside == "feed_forward.experts.gate_up", f"{name} is a tensor of no known kind"
    own = (shape[1] // 2, shape[2])
    return [
        Piece(f"{block}experts.{e}.{part}.weight", (e, start, 0), (1, *own), own)
        for e in range(shape[0])
        for part, start in ((gate, 0), (up, own[0]))
    ]


def _projection(inside: str) -> str:
    """Return gate_proj.weight of feed_forward.gate.weight, and so on."""
    return f"{inside.split('.')[-2]}_proj.weight"
