"""Language-model metrics with their own reduction over batches and devices."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchmetrics import Metric


class _SummedNLL(Metric):
    """Sum of negative log-likelihoods over what it is divided by, exact over batches and devices of any sizes.

    Args:
        dtype: Type of the sums. float64 adds millions of float32 values and counts to 2^53 without loss; a device that
            has none takes float32.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    nll: Tensor
    units: Tensor

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.add_state("nll", torch.zeros((), dtype=dtype), dist_reduce_fx="sum")
        self.add_state("units", torch.zeros((), dtype=dtype), dist_reduce_fx="sum")

    def _add(self, nll: Tensor, units: Tensor) -> None:
        self.nll += nll.detach().to(self.nll.dtype).sum()
        self.units += units.to(self.units.dtype).sum()


class TokenLoss(_SummedNLL):
    """Mean negative log-likelihood in nats per token; NaN if there was no token."""

    def update(self, nll: Tensor, scored: Tensor) -> None:
        """Add a batch.

        Args:
            nll: Nats of each token, of any shape; 0 where not scored.
            scored: True where a token is scored, of the same shape.
        """
        self._add(nll, scored)

    def compute(self) -> Tensor:
        """Return nats per token."""
        return (self.nll / self.units).float()


class BitsPerByte(_SummedNLL):
    """Bits of information per UTF-8 byte of the text: comparable between tokenizers; NaN if there was no byte."""

    def update(self, nll: Tensor, byte_lengths: Tensor) -> None:
        """Add a batch.

        Args:
            nll: Nats of each token, of any shape; 0 where not scored.
            byte_lengths: UTF-8 length of each scored token, of the same shape; 0 where not scored or no text.
        """
        self._add(nll, byte_lengths)

    def compute(self) -> Tensor:
        """Return bits per byte."""
        return (self.nll / self.units / math.log(2)).float()

    @property
    def text_bytes(self) -> int:
        """UTF-8 bytes scored so far on this device."""
        return int(self.units)
