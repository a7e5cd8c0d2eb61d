"""FLOPs: what is counted on the meta device is what torch's counter counts in a real forward pass."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from lit_core.lm.transformers_loading import quiet_transformers
from lit_moe.doctor.check import Finding
from lit_moe.doctor.specimen import Specimen

#: Tokens per sequence: as many as a small model's windows hold, and more.
_LENGTHS = (8, 24)


def check(specimen: Specimen) -> Finding:
    """Compare `HFDecoder.flops_per_token` with the products that a forward pass does.

    Args:
        specimen: The model.
    """
    for length in _LENGTHS:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            told = specimen.decoder().flops_per_token(length)
        if math.isnan(told):
            return Finding("refused", str(said[-1].message))
        done = products_per_token(specimen.decoder().model, specimen.tokens(1, length))
        if not math.isclose(told, done, rel_tol=1e-9):
            return Finding("fail", f"A token of {length} takes {done:g} operations, but {told:g} are counted.")
    return Finding("pass")


def products_per_token(model: Any, tokens: Tensor) -> float:
    """Return the operations of a token in the matrix products of a forward pass, without those of zeros.

    Rows of zeros, which some experts are given for the tokens of others, count nothing. Attention counts as many keys
    per query as the query with most of them has.

    Args:
        model: A causal language model of transformers, with weights.
        tokens: Token ids of shape ``(batch, length)``.
    """
    with quiet_transformers():
        model.set_attn_implementation("eager")
        model.set_experts_implementation("eager")
    counter = _NonZero()
    with torch.no_grad(), counter:
        model.eval().requires_grad_(False)(input_ids=tokens, use_cache=False)
    return counter.total / tokens.numel()


class _NonZero(FlopCounterMode):
    """Torch's counter, less the products with rows of zeros and with keys that no query of the sequence attends to."""

    def __init__(self) -> None:
        aten = torch.ops.aten
        others = {
            aten.mv: lambda matrix, *args, out_shape=None, **options: 2 * math.prod(matrix),
            aten.linalg_solve_triangular: lambda matrix, sides, **options: math.prod(sides) * matrix[-1],
            aten._scaled_dot_product_flash_attention_for_cpu: _attention,
        }
        super().__init__(display=False, custom_mapping=others)
        self.idle = 0.0
        self._scores: dict[tuple[int, ...], int] = {}  # width of the keys, by the shape of the products with queries

    @property
    def total(self) -> float:
        """Operations that are not with zeros."""
        return self.get_total_flops() - self.idle

    def _count_flops(self, func_packet: Any, out: Any, args: Any, kwargs: Any) -> Any:
        if func_packet in (torch.ops.aten.mm, torch.ops.aten.bmm):
            left, right = args[:2]
            width = right.shape[-1]
            if any(name.endswith("experts") for name in self.mod_tracker.parents):
                self.idle += 2 * int((left == 0).all(-1).sum()) * left.shape[-1] * width
            elif left.dim() == 3:
                self._scores[tuple(out.shape)] = left.shape[-1]
                self._count_keys(left, width)
        return super()._count_flops(func_packet, out, args, kwargs)

    def _count_keys(self, left: Tensor, width: int) -> None:
        """Count as idle the keys that the queries do not attend to, where the left factor holds attention weights."""
        is_attention = bool((left >= 0).all()) and bool((left.sum(-1) <= 1.001).all()) and left.shape in self._scores
        if is_attention:
            unseen = left.shape[-1] - int((left > 0).sum(-1).max())
            self.idle += 2 * left.shape[:-1].numel() * unseen * (width + self._scores[tuple(left.shape)])


def _attention(query: Any, key: Any, value: Any, *args: Any, out_shape: Any = None, **options: Any) -> int:
    batch, heads, queries, width = query
    return int(2 * batch * heads * queries * key[2] * (width + value[3]))
