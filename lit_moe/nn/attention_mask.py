"""Which keys a query may attend to: a dense mask, or blocks of which flex attention skips the empty ones.

Shape suffixes: B batch, S new tokens, K keys.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

Allowed: TypeAlias = "Tensor | BlockMask | None"
"""What a query may see: a dense mask, blocks, or all earlier keys."""

#: Narrowest head that flex attention takes on a GPU.
_MIN_HEAD = 16


def attention_mask(
    start: int, length: int, mask_BK: Tensor | None, document_BS: Tensor | None, device: torch.device
) -> Tensor | None:
    """Return True where a query may attend to a key; None if plain causal attention needs no mask.

    Args:
        start: Number of earlier keys.
        length: Number of queries, S.
        mask_BK: True for real tokens, shape ``(batch, start + length)``; None for no padding.
        document_BS: Index of the document of each token, shape ``(batch, length)``; None for one document per row.
        device: Device of the result.

    Returns:
        Shape ``(batch or 1, 1, length, start + length)``.
    """
    if mask_BK is None and document_BS is None and (start == 0 or length == 1):
        return None
    keys_K = torch.arange(start + length, device=device)
    queries_S = keys_K[start:]
    allowed = (keys_K <= queries_S[:, None])[None]
    if mask_BK is not None:
        # Padding sees itself: a query that may see nothing gives NaN.
        allowed = allowed & mask_BK[:, None] | (keys_K == queries_S[:, None])
    if document_BS is not None:
        allowed = allowed & (document_BS[:, None] == document_BS[:, :, None])
    return allowed[:, None]


def takes_blocks(document_BS: Tensor, head_width: int) -> bool:
    """Tell whether `block_mask` serves better than a dense mask: for documents on a GPU.

    A dense mask keeps flash attention away and costs B S² bytes. That blocks are faster was not measured.

    Args:
        document_BS: Index of the document of each token, shape ``(batch, length)``.
        head_width: Width of a head.
    """
    return document_BS.is_cuda and head_width >= _MIN_HEAD


def block_mask(mask_BS: Tensor | None, document_BS: Tensor) -> BlockMask:
    """Return what `attention_mask` allows without earlier keys, in blocks.

    Args:
        mask_BS: True for real tokens, shape ``(batch, length)``; None for no padding.
        document_BS: Index of the document of each token, shape ``(batch, length)``.
    """
    batch, length = document_BS.shape

    def allowed(b: Tensor, _: Tensor, query: Tensor, key: Tensor) -> Tensor:
        seen = (key <= query) & (document_BS[b, query] == document_BS[b, key])
        return seen if mask_BS is None else seen & (mask_BS[b, key] | (key == query))

    made: BlockMask = _flex("create_block_mask", document_BS.device.type)(
        allowed, batch, None, length, length, device=str(document_BS.device)
    )
    return made


def attend_in_blocks(q_BHSd: Tensor, k_BHSd: Tensor, v_BHSd: Tensor, blocks: BlockMask) -> Tensor:
    """Return torch's flex attention of queries, keys and values ``(batch, heads, length, head width)``.

    Args:
        q_BHSd: Queries.
        k_BHSd: Keys, of as many heads or of a divisor of them.
        v_BHSd: Values, of as many heads as the keys.
        blocks: The mask.

    Returns:
        The shape of the queries.
    """
    gqa = q_BHSd.shape[1] != k_BHSd.shape[1]
    out: Tensor = _flex("flex_attention", q_BHSd.device.type)(q_BHSd, k_BHSd, v_BHSd, block_mask=blocks, enable_gqa=gqa)
    return out


@cache
def _flex(name: str, device: str) -> Any:
    """Return a function of flex attention, compiled on a GPU: uncompiled, it makes the whole dense mask."""
    from torch.nn.attention import flex_attention

    function = getattr(flex_attention, name)
    return torch.compile(function) if device == "cuda" else function
