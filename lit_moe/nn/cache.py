"""KV cache: keys and values of the tokens that a decoder has already seen."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class KVCache:
    """Keys and values of each layer, whose storage grows by doubling, so that a new token is copied alone.

    Create it empty and pass it to every call of the decoder, which fills it. Not for training.

    Attributes:
        length: Number of tokens per row that have been seen, padding included.
    """

    def __init__(self) -> None:
        self.length = 0
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}
        self._mask: Tensor | None = None

    def update(self, layer: int, keys_BHSd: Tensor, values_BHSd: Tensor) -> tuple[Tensor, Tensor]:
        """Append one layer's keys and values and return all of them.

        Args:
            layer: Index of the layer.
            keys_BHSd: New keys of shape ``(batch, heads, new tokens, head_dim)``.
            values_BHSd: New values of the same shape.

        Returns:
            All keys and all values, shape ``(batch, heads, length + new tokens, head_dim)``.
        """
        end = self.length + keys_BHSd.shape[2]
        if layer not in self._layers or self._layers[layer][0].shape[2] < end:
            self._layers[layer] = (self._grow(layer, 0, keys_BHSd, end), self._grow(layer, 1, values_BHSd, end))
        keys, values = self._layers[layer]
        keys[:, :, self.length : end] = keys_BHSd
        values[:, :, self.length : end] = values_BHSd
        return keys[:, :, :end], values[:, :, :end]

    def _grow(self, layer: int, which: int, new: Tensor, end: int) -> Tensor:
        grown = new.new_empty(*new.shape[:2], max(2 * self.length, end), new.shape[3])
        if self.length:
            grown[:, :, : self.length] = self._layers[layer][which][:, :, : self.length]
        return grown

    def advance(self, new_tokens: int) -> None:
        """Count tokens as seen, after all layers were updated.

        Args:
            new_tokens: Number of tokens per row that were appended.
        """
        self.length += new_tokens

    def keep_rows(self, rows: Sequence[int]) -> None:
        """Remove all rows of the batch but some.

        Args:
            rows: Indices of the rows to keep.
        """
        indices = list(rows)
        self._layers = {layer: (keys[indices], values[indices]) for layer, (keys, values) in self._layers.items()}
        self._mask = None if self._mask is None else self._mask[indices]

    def extend_mask(self, mask_BS: Tensor | None, batch: int, new_tokens: int, device: torch.device) -> Tensor | None:
        """Append the mask of the new tokens and return the mask of all tokens.

        Args:
            mask_BS: True for real tokens, shape ``(batch, new tokens)``; None for all.
            batch: Number of rows.
            new_tokens: Number of new tokens per row.
            device: Device of the mask.

        Returns:
            Shape ``(batch, length + new tokens)``; None if no padding was ever given.
        """
        if mask_BS is None and self._mask is None:
            return None
        if mask_BS is None:
            mask_BS = torch.ones(batch, new_tokens, dtype=torch.bool, device=device)
        if self._mask is None:
            self._mask = torch.ones(batch, self.length, dtype=torch.bool, device=device)
        self._mask = torch.cat((self._mask, mask_BS), dim=1)
        return self._mask
