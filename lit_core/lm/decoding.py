"""Faster decoding with transformers' models: a cache that grows by doubling, and attention on the CPU.

Shape suffixes: B batch, H query heads, G key and value heads, S new tokens, K tokens seen so far, d head width.
"""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from lightning_utilities.core.imports import RequirementCache
from torch import Tensor, nn

#: Name under which transformers knows our attention.
ATTENTION = "lit_core_packed"
#: Queries and products per block in `causal_attention`, few enough for the processor's cache.
_QUERIES, _PRODUCTS = 128, 1 << 18


def grow_in_place(cache: Any) -> None:
    """Make the layers of a transformers KV cache grow in place instead of being copied for each token.

    Args:
        cache: A cache that a model has made; layers of other kinds, such as sliding windows, stay as they are.
    """
    from transformers.cache_utils import DynamicLayer

    for index, layer in enumerate(getattr(cache, "layers", ())):
        if type(layer) is DynamicLayer and layer.is_initialized:
            cache.layers[index] = _growing_layer().after(layer)  # type: ignore[attr-defined]


def keep_cache_rows(cache: Any, indices: Tensor) -> None:
    """Keep some rows of a transformers KV cache, in place.

    Args:
        cache: The cache; a model's own, or one of layers, whose states of linear attention, convolutions and
            compressed keys follow a reordering, as beam search does, but no selection.
        indices: Indices of the rows to keep.
    """
    from transformers import Cache

    if type(cache).batch_select_indices is not Cache.batch_select_indices:
        cache.batch_select_indices(indices)
    else:
        cache.reorder_cache(indices)


@lru_cache
def _growing_layer() -> type:
    from transformers.cache_utils import DynamicLayer

    class GrowingLayer(DynamicLayer):
        """Keys and values in buffers that double when they are full; `keys` and `values` are views of the filled part.

        If these views are replaced, for example by a selection of rows, the next update allocates new buffers.
        """

        _filled: dict[str, tuple[Tensor, Tensor]]

        @classmethod
        def after(cls, layer: Any) -> Any:
            """Return a layer with the keys and values of another one."""
            grown = cls()
            grown.__dict__.update(layer.__dict__, _filled={})
            return grown

        def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
            self.keys = self._append("keys", key_states)
            self.values = self._append("values", value_states)
            return self.keys, self.values

        def _append(self, name: str, new_BGSd: Tensor) -> Tensor:
            held_BGKd = getattr(self, name)
            seen = held_BGKd.shape[2] if held_BGKd.dim() == 4 else 0
            end = seen + new_BGSd.shape[2]
            buffer, view = self._filled.get(name, (None, None))
            if buffer is None or view is not held_BGKd or buffer.shape[2] < end:
                buffer = new_BGSd.new_empty(*new_BGSd.shape[:2], max(2 * seen, end), new_BGSd.shape[3])
                if seen:
                    buffer[:, :, :seen] = held_BGKd
            buffer[:, :, seen:end] = new_BGSd
            self._filled[name] = (buffer, buffer[:, :, :end])
            return self._filled[name][1]

    return GrowingLayer


def use_packed_attention(model: nn.Module) -> None:
    """Make a transformers model use `packed_attention` instead of torch's attention; the results are the same.

    Args:
        model: The model, changed in place; unchanged if it does not use torch's attention, or does something else
            under that name, as sparse attention does, whose layers then leave the choice of keys to the kernel.
    """
    config = getattr(model, "config", None)
    if getattr(config, "_attn_implementation", None) != "sdpa" or not RequirementCache("transformers>=4.53"):
        return
    if any(_speaks_of_sdpa(kind) for kind in {type(module) for module in model.modules()}):
        return
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(ATTENTION, packed_attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    model.set_attn_implementation(ATTENTION)  # type: ignore[operator]


def _speaks_of_sdpa(kind: type) -> bool:
    """Tell whether a method of a class compares with the name of torch's attention."""
    functions = (inspect.unwrap(value) for value in vars(kind).values() if inspect.isfunction(value))
    constants = [constant for function in functions for constant in function.__code__.co_consts]
    return any(constant == "sdpa" or (isinstance(constant, tuple) and "sdpa" in constant) for constant in constants)


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Compute attention; for a single new token, each key is read once for all query heads that share it.

    torch's kernel for the CPU reads the keys again for each head, which takes ten times as long. Here the heads that
    share keys are treated as several queries of one head. Whole texts in bfloat16 on the CPU are passed to
    `causal_attention`, and all other inputs to transformers' own attention.

    Args:
        module: The attention layer.
        query: ``(B, H, S, d)``.
        key: ``(B, G, K, d)``, where H is a multiple of G.
        value: As the keys.
        attention_mask: Additive or boolean, ``(B, 1 or H, S, K)``; None where every key is seen.
        dropout: Probability of dropping a weight.
        scaling: Factor of the products; None takes 1 / √d.
        others: Further arguments that transformers passes to its attention.

    Returns:
        The output ``(B, S, H, d)``, and None instead of the weights.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    batch, heads, new, width = query.shape
    groups = key.shape[1]
    one_mask = attention_mask is None or attention_mask.shape[1] == 1
    plain = not any(others.get(name) is not None for name in ("softcap", "position_bias", "cache"))
    whole = new == key.shape[2] and attention_mask is None and dropout == 0 and not query.requires_grad
    if plain and whole and new > 1 and query.device.type == "cpu" and query.dtype == torch.bfloat16:
        if others.get("is_causal") is not False and getattr(module, "is_causal", True):
            return causal_attention(query, key, value, width**-0.5 if scaling is None else scaling), None
    if new > 1 or groups == heads or not one_mask or not plain:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **others)
    packed_BGRd = query.reshape(batch, groups, heads // groups, width)
    output_BGRd = F.scaled_dot_product_attention(
        packed_BGRd, key, value, attn_mask=attention_mask, dropout_p=dropout, scale=scaling
    )
    return output_BGRd.reshape(batch, 1, heads, value.shape[-1]), None


def causal_attention(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """Compute causal attention in blocks that fit in the processor's cache.

    It is meant for bfloat16 on a CPU that supports it, where torch's kernel is slow. Products are rounded to bfloat16
    as in transformers' eager attention, and the softmax is in float32.

    Args:
        query: ``(B, H, S, d)``.
        key: ``(B, G, S, d)``, where H is a multiple of G.
        value: As the keys.
        scaling: Factor of the products.

    Returns:
        The output ``(B, S, H, d)``.
    """
    batch, heads, length, _ = query.shape
    groups, shared = key.shape[1], heads // key.shape[1]
    output_BSHd = query.new_empty(batch, length, heads, value.shape[-1])
    later_SS = torch.full((_QUERIES, _QUERIES), -torch.inf).triu(1)
    for start in range(0, length, _QUERIES):
        end = min(length, start + _QUERIES)
        new = end - start
        rows = max(1, _PRODUCTS // (heads * new * end))
        for row in range(0, batch, rows):
            some = slice(row, row + rows)
            # The heads that share keys are treated as several queries of one head.
            query_BGRd = query[some, :, start:end].reshape(-1, groups, shared * new, query.shape[-1])
            scores_BGRK = torch.matmul(query_BGRd, key[some, :, :end].transpose(-1, -2)).float().mul_(scaling)
            scores_BGRK.unflatten(2, (shared, new))[..., start:].add_(later_SS[:new, :new])
            output_BGRd = torch.matmul(scores_BGRK.softmax(-1).to(value.dtype), value[some, :, :end])
            output_BSHd[some, start:end] = output_BGRd.view(-1, heads, new, value.shape[-1]).transpose(1, 2)
    return output_BSHd
