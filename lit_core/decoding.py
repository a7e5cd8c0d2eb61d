"""What makes transformers' models write fast: a cache that grows by doubling, and attention of a single new token.

Shape suffixes: B batch, H query heads, G key and value heads, S new tokens, K tokens seen so far, d head width.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch.nn.functional as F
from lightning_utilities.core.imports import RequirementCache
from torch import Tensor, nn

#: Name under which transformers knows our attention.
ATTENTION = "lit_core_packed"


def new_cache(config: Any) -> Any:
    """Return transformers' cache with layers that do not copy what they hold at each token.

    Args:
        config: Configuration of the model; layers of other kinds, such as sliding windows, stay transformers' own.
    """
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    cache = DynamicCache(config=config)
    cache.layers = [_growing_layer()() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


@lru_cache
def _growing_layer() -> type:
    from transformers.cache_utils import DynamicLayer

    class GrowingLayer(DynamicLayer):
        """Keys and values in buffers that double when they are full; `keys` and `values` are views of what is filled.

        Whatever replaces those views, such as a choice of rows, makes the next update begin with new buffers.
        """

        def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
            if not self.is_initialized:
                self.lazy_initialization(key_states, value_states)
                self._filled: dict[str, tuple[Tensor, Tensor]] = {}
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
    """Let a model of transformers attend in `packed_attention`, where it would take torch's; results are the same.

    Args:
        model: The model, changed in place; left alone if it has an attention of its own.
    """
    config = getattr(model, "config", None)
    if getattr(config, "_attn_implementation", None) != "sdpa" or not RequirementCache("transformers>=4.53"):
        return
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(ATTENTION, packed_attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    model.set_attn_implementation(ATTENTION)  # type: ignore[operator]


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
    """Attend; where query heads share keys and a single token is new, each key is read once for all its heads.

    torch's kernel for the CPU goes through each head alone, which takes ten times as long as reading the keys. The
    heads that share keys stand for several queries of one head instead. In all other cases this is transformers' own.

    Args:
        module: The attention layer.
        query: ``(B, H, S, d)``.
        key: ``(B, G, K, d)``, where H is a multiple of G.
        value: As the keys.
        attention_mask: Additive or boolean, ``(B, 1 or H, S, K)``; None where every key is seen.
        dropout: Probability of dropping a weight.
        scaling: Factor of the products; None takes 1 / √d.
        others: What else transformers hands to its attention.

    Returns:
        ``(B, S, H, d)``, and None in the place of the weights.
    """
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    batch, heads, new, width = query.shape
    groups = key.shape[1]
    one_mask = attention_mask is None or attention_mask.shape[1] == 1
    plain = not any(others.get(name) is not None for name in ("softcap", "position_bias", "cache"))
    if new > 1 or groups == heads or not one_mask or not plain:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **others)
    packed_BGRd = query.reshape(batch, groups, heads // groups, width)
    output_BGRd = F.scaled_dot_product_attention(
        packed_BGRd, key, value, attn_mask=attention_mask, dropout_p=dropout, scale=scaling
    )
    return output_BGRd.reshape(batch, 1, heads, value.shape[-1]), None
