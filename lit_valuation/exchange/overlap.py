"""Samples of an answer that the trainer has already: they are left out and counted, and cost the owner nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lit_valuation.data.copies import Comparable, CopyFinder
from lit_valuation.exchange.acceptance import TrainerData


@dataclass(frozen=True)
class Overlap:
    """Which samples of an answer the trainer has.

    Args:
        is_own: Whether each sample is left out, bool of shape ``(n,)``.
        equal: Number of samples that are equal to one of the trainer's, by the set that has it.
        near: Number of those that are nearly equal.
    """

    is_own: Tensor
    equal: Mapping[str, int]
    near: Mapping[str, int]

    @property
    def note(self) -> str:
        """What the trainer must know, as a clause; empty if nothing is left out."""
        counts = [
            f"{self.equal[part] + self.near[part]} of the {part} ({self.equal[part]} equal, {self.near[part]} nearly)"
            for part in self.equal
            if self.equal[part] + self.near[part]
        ]
        n, n_own = len(self.is_own), int(self.is_own.sum())
        return f"{n_own} of its {n} samples are yours, and do not count: {', '.join(counts)}" if counts else ""

    @property
    def counts(self) -> dict[str, dict[str, int]]:
        """Equal and nearly equal samples by set, as the ledger records them, without sets that have none."""
        parts = [part for part in self.equal if self.equal[part] + self.near[part]]
        return {part: {"equal": self.equal[part], "near": self.near[part]} for part in parts}


class OverlapFinder:
    """Finds what an answer has in common with each of the trainer's sets.

    Args:
        own: The trainer's data.
        finder: Finds copies; its own samples are the training set.
    """

    def __init__(self, own: TrainerData, finder: CopyFinder) -> None:
        parts = {
            "queries": own.queries,
            "held-out hard cases": own.held_out,
            "test set": own.test,
            "validation set": own.other_val,
        }
        sets = {part: finder.prepare(samples) for part, samples in parts.items() if samples is not None}
        self._finder, self._sets = finder, {**sets, "training set": finder.own}

    def find(self, answer: Comparable) -> Overlap:
        """Return an answer's overlap.

        A sample that several sets have counts for the first of them that has an equal one, or else a near one.

        Args:
            answer: The answer's samples.
        """
        is_own = torch.zeros(len(answer.samples), dtype=torch.bool)
        counts: list[dict[str, int]] = []
        for find in (self._finder.exact, self._finder.all):
            counts.append({})
            for part, known in self._sets.items():
                is_copy = find(answer, known) & ~is_own
                counts[-1][part] = int(is_copy.sum())
                is_own |= is_copy
        return Overlap(is_own, *counts)
