"""Atoms of a matching pursuit, a share of them on each rank: the one place where ranks talk to each other.

A step moves C + d + 3 numbers for each problem, however many atoms there are: the best score, the number of the atom
that has it, its two factors and its penalty.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from lit_valuation.functional.gradients import LastLayerGradients

NO_ATOM = torch.iinfo(torch.int64).max


class Atoms:
    """The atoms of this rank among those of all, and the Gram columns that were asked for.

    Args:
        gradients: The atoms of this rank, n of them.
        numbers: Number of each, unique over all ranks.
        group: Processes that hold the others; None where there are none.
    """

    def __init__(self, gradients: LastLayerGradients, numbers: Tensor, group: dist.ProcessGroup | None) -> None:
        self.gradients, self.numbers, self.group = gradients, numbers, group
        self.squares = gradients.squared_norms()
        totals = torch.stack([self.squares.double().sum(), torch.tensor(float(len(numbers)), device=numbers.device)])
        square, count = self._over_ranks(totals.double(), dist.ReduceOp.SUM).tolist()
        self.count, self.mean_square = int(count), square / max(1.0, count)
        self._row_of: dict[int, int] = {}
        self._columns = gradients.delta.new_empty(0, len(numbers))

    def best(self, scores: Tensor, rounding: Tensor) -> list[int]:
        """Return the number of the atom with the highest score of all ranks, the lowest of those equal up to rounding.

        Args:
            scores: Of this rank's atoms by problem, ``(T, n)``; 0 or less for those that are out of the question.
            rounding: By how much each may be off.

        Returns:
            A number per problem; `NO_ATOM` where no score is above 0.
        """
        highest = scores.amax(1) if scores.shape[1] else scores.new_zeros(len(scores))
        highest = self._over_ranks(highest, dist.ReduceOp.MAX)
        equal = (scores > 0) & (scores + rounding >= highest[:, None])
        # The empty column keeps a rank without atoms in step.
        candidates = torch.where(equal, self.numbers, NO_ATOM)
        lowest = torch.cat([candidates, candidates.new_full((len(scores), 1), NO_ATOM)], dim=1).amin(1)
        return self._over_ranks(lowest, dist.ReduceOp.MIN).tolist()

    def fetch(self, chosen: list[int], penalties: Tensor) -> tuple[LastLayerGradients, Tensor]:
        """Return an atom for each problem with its penalty, on every rank.

        Args:
            chosen: Number of each problem's atom.
            penalties: Of this rank's atoms by problem, ``(T, n)``.
        """
        delta, hidden = self.gradients.delta, self.gradients.hidden
        outputs, width = delta.shape[1], hidden.shape[1]
        rows = delta.new_zeros(len(chosen), outputs + width + 1)
        problems, places = (self.numbers == torch.tensor(chosen, device=delta.device)[:, None]).nonzero().unbind(1)
        rows[problems] = torch.cat([delta[places], hidden[places], penalties[problems, places][:, None]], dim=1)
        rows = self._over_ranks(rows, dist.ReduceOp.SUM)
        factors = LastLayerGradients(rows[:, :outputs], rows[:, outputs:-1], self.gradients.bias)
        return factors, rows[:, -1]

    def add_columns(self, chosen: list[int], atoms: LastLayerGradients) -> None:
        """Compute the Gram columns of some atoms, as one product; those computed before are kept.

        Args:
            chosen: Numbers of the atoms.
            atoms: The atoms.
        """
        new = {number: i for i, number in enumerate(chosen) if number not in self._row_of}
        start, end = len(self._row_of), len(self._row_of) + len(new)
        if end > len(self._columns):  # twice the room; memory that was never written is not taken
            self._columns = torch.cat([self._columns[:start], self._columns.new_empty(end, len(self.numbers))])
        self._row_of.update({number: start + i for i, number in enumerate(new)})
        if new:
            self._columns[start:end] = atoms.take([*new.values()]).gram(self.gradients)

    def combine(self, supports: Sequence[list[int]], weights: Sequence[Tensor]) -> Tensor:
        """Return each atom's product with weighted sums of chosen atoms, ``(T, n)``.

        Args:
            supports: Numbers of the atoms of each sum.
            weights: Their weights.
        """
        matrix = self._columns.new_zeros(len(supports), len(self._row_of))
        for line, support, values in zip(matrix, supports, weights, strict=True):
            line[[self._row_of[number] for number in support]] = values.to(matrix)
        return matrix @ self._columns[: len(self._row_of)]

    def mark(self, line: Tensor, number: int, value: bool) -> None:
        """Set the entry of one atom, where it is of this rank, in a line with an entry per atom."""
        line[self.numbers == number] = value

    def _over_ranks(self, values: Tensor, operation: dist.ReduceOp.RedOpType) -> Tensor:
        if self.group is None:
            return values
        # gradients are kept on the CPU, where GPUs' ranks cannot talk
        place = torch.cuda.current_device() if dist.get_backend(self.group) == "nccl" else values.device
        shared = values.to(place)
        dist.all_reduce(shared, operation, self.group)
        return shared.to(values.device)
