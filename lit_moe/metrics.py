"""Metrics of language models and of routing drift, with their own reduction over batches and devices."""

from __future__ import annotations

import math
import operator
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_core.errors import UserError
from lit_core.lightning.one_value import OneValue
from lit_core.screen import rank_zero_warn
from lit_moe.functional.drift import (
    VocabularySpecialization,
    add_id_counts,
    coactivation_overlap,
    pair_counts,
    shared_experts,
    vocabulary_specialization,
)


class _SummedNLL(Metric):
    """Sum of negative log-likelihoods over a number of units, exact over batches and devices of any sizes.

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
    """Bits of information per UTF-8 byte of the text: comparable between tokenizers.

    NaN if there was no byte, or if a token stands for unknown text, whose bytes nobody has counted.
    """

    def update(self, nll: Tensor, byte_lengths: Tensor) -> None:
        """Add a batch.

        Args:
            nll: Nats of each token, of any shape; 0 where not scored.
            byte_lengths: UTF-8 length of each scored token, of the same shape; 0 where not scored or no text, NaN for
                unknown text.
        """
        self._add(nll, byte_lengths)

    def compute(self) -> Tensor:
        """Return bits per byte."""
        if self.units.isnan():
            rank_zero_warn(
                "Bits per byte are not known, since the text has characters that the tokenizer lacks, which it encodes "
                "as one token for unknown text; choose a tokenizer that encodes all bytes."
            )
        return (self.nll / self.units / math.log(2)).float()

    @property
    def text_bytes(self) -> int | None:
        """UTF-8 bytes scored so far on this device; None if not known."""
        return None if self.units.isnan() else int(self.units)


class _Drift(Metric):
    """Base class of the metrics of routing drift.

    Args:
        n_experts: Routed experts of the layer.
        top_k: Experts per token.
    """

    is_differentiable = False
    full_state_update = False

    def __init__(self, n_experts: int, top_k: int) -> None:
        super().__init__()
        self.n_experts, self.top_k = operator.index(n_experts), operator.index(top_k)


class ContinualRouterSaturation(_Drift):
    """Mean share of a token's experts that two models both choose (CRS of Thérien et al. 2025); NaN without tokens.

    The chance level of two unrelated routers is k/E.

    Args:
        n_experts: Routed experts of the layer.
        top_k: Experts per token.
    """

    higher_is_better = True

    shared: Tensor
    tokens: Tensor

    def __init__(self, n_experts: int, top_k: int) -> None:
        super().__init__(n_experts, top_k)
        self.add_state("shared", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("tokens", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, reference: Tensor, indices: Tensor) -> None:
        """Add tokens.

        Args:
            reference: Experts chosen by the reference, shape ``(tokens, k)``.
            indices: Experts chosen by the model, of the same shape.
        """
        self.shared += shared_experts(reference, indices).sum()
        self.tokens += len(indices)

    def compute(self) -> Tensor:
        """Return the share, from 0 to 1."""
        return self.shared / (self.top_k * self.tokens)


class ContinualVocabularySpecialization(OneValue, _Drift):
    """Share of tokens that still go to their id's most frequent expert under the reference (Thérien et al. 2025).

    Averaged per occurrence (each token counts once) and per id (each id counts once, as OLMoE does). The chance level
    of two unrelated routers is k/E. It keeps two numbers per token id and expert.

    Args:
        n_experts: Routed experts of the layer.
        top_k: Experts per token.
        vocab_size: Number of token ids.
        min_occurrences: Least number of occurrences of an id in the average per id.
        value: per_occurrence or per_id, to compute only one, as a scalar that can be logged; None computes both.

    Raises:
        UserError: If there is no such average.
    """

    higher_is_better = True

    reference: Tensor
    counts: Tensor

    def __init__(
        self, n_experts: int, top_k: int, vocab_size: int, min_occurrences: int = 10, value: str | None = None
    ) -> None:
        super().__init__(value, VocabularySpecialization._fields, n_experts=n_experts, top_k=top_k)
        self.vocab_size, self.min_occurrences = operator.index(vocab_size), operator.index(min_occurrences)
        for name in ("reference", "counts"):  # int32: there are many
            self.add_state(name, torch.zeros(vocab_size, n_experts, dtype=torch.int32), dist_reduce_fx="sum")

    def update(self, ids: Tensor, reference: Tensor, indices: Tensor) -> None:
        """Add tokens.

        Args:
            ids: Token ids of shape ``(tokens,)``.
            reference: Experts chosen by the reference, shape ``(tokens, k)``.
            indices: Experts chosen by the model, of the same shape.
        """
        add_id_counts(self.reference, ids, reference)
        add_id_counts(self.counts, ids, indices)

    def compute(self) -> Any:
        """Return both averages, from 0 to 1, or the chosen one."""
        both = vocabulary_specialization(self.reference, self.counts, self.top_k, self.min_occurrences)
        return both if self.value is None else self.selected(both._asdict())


class CoactivationOverlap(OneValue, _Drift):
    """Overlap of two models' co-activation of experts, over all pairs.

    Args:
        n_experts: Routed experts of the layer.
        top_k: Experts per token, 2 or more: one expert alone has no partner.
        value: overlap or chance, to compute only one, as a scalar that can be logged; None computes all.

    Raises:
        UserError: If top_k is below 2, or there is no such value.
    """

    higher_is_better = True

    reference: Tensor
    pairs: Tensor

    def __init__(self, n_experts: int, top_k: int, value: str | None = None) -> None:
        super().__init__(value, ("overlap", "chance"), n_experts=n_experts, top_k=top_k)
        if top_k < 2:
            raise UserError(f"top_k is {top_k}, but co-activation needs 2 experts per token; leave the metric out.")
        for name in ("reference", "pairs"):
            self.add_state(name, torch.zeros(n_experts, n_experts, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, reference: Tensor, indices: Tensor) -> None:
        """Add tokens.

        Args:
            reference: Experts chosen by the reference, shape ``(tokens, k)``.
            indices: Experts chosen by the model, of the same shape.
        """
        self.reference += pair_counts(reference, self.n_experts)
        self.pairs += pair_counts(indices, self.n_experts)

    def compute(self) -> Any:
        """Return the overlap, from 0 to 1, and its chance level for this reference, or the chosen one."""
        found = coactivation_overlap(self.reference, self.pairs, self.top_k)
        return found if self.value is None else self.selected(found._asdict())
