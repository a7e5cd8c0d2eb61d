"""Atoms of a matching pursuit, divided among ranks; all communication of the pursuit is here.

A step sends C + d + 3 numbers per problem, independent of the number of atoms: the best score, the index of its atom,
the atom's two factors and its penalty. Of gradients over tokens it sends a packed atom in place of the factors.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from lit_valuation.functional.gradients import SampleGradients

NO_ATOM = torch.iinfo(torch.int64).max


class Atoms:
    """The atoms of this rank, and the Gram columns computed so far.

    Args:
        gradients: The n atoms of this rank.
        numbers: Global index of each atom, unique over all ranks.
        group: Processes that hold the other atoms; None if this process holds all.
    """

    def __init__(self, gradients: SampleGradients, numbers: Tensor, group: dist.ProcessGroup | None) -> None:
        self.gradients, self.numbers, self.group = gradients, numbers, group
        self.squares = gradients.squared_norms()
        totals = torch.stack([self.squares.double().sum(), torch.tensor(float(len(numbers)), device=numbers.device)])
        square, count = self._over_ranks(totals.double(), dist.ReduceOp.SUM).tolist()
        self.count, self.mean_square = int(count), square / max(1.0, count)
        self._row_of: dict[int, int] = {}
        self._columns = gradients.like.new_empty(0, len(numbers))

    def best(self, scores: Tensor, rounding: Tensor) -> list[int]:
        """Return the global index of the atom with the highest score over all ranks, for each problem.

        Args:
            scores: Scores of this rank's atoms, ``(T, n)``; 0 or less for atoms that must not be chosen.
            rounding: Rounding error of each score, ``(T, n)``.

        Returns:
            An index per problem, of scores equal up to rounding the lowest index; `NO_ATOM` if no score is above 0.
        """
        highest = scores.amax(1) if scores.shape[1] else scores.new_zeros(len(scores))
        highest = self._over_ranks(highest, dist.ReduceOp.MAX)
        equal = (scores > 0) & (scores + rounding >= highest[:, None])
        # The extra column gives a rank without atoms something to reduce.
        candidates = torch.where(equal, self.numbers, NO_ATOM)
        lowest = torch.cat([candidates, candidates.new_full((len(scores), 1), NO_ATOM)], dim=1).amin(1)
        return self._over_ranks(lowest, dist.ReduceOp.MIN).tolist()

    def fetch(self, chosen: list[int], penalties: Tensor) -> tuple[SampleGradients, Tensor]:
        """Send the chosen atoms to every rank.

        Args:
            chosen: Global index of each problem's atom.
            penalties: Penalties of this rank's atoms, ``(T, n)``.

        Returns:
            The T atoms and their penalties, ``(T,)``.
        """
        device = self.gradients.like.device
        problems, positions = (self.numbers == torch.tensor(chosen, device=device)[:, None]).nonzero().unbind(1)
        packed = self.gradients.take(positions).packed()
        rows = packed.new_zeros(len(chosen), packed.shape[1] + 1)
        rows[problems] = torch.cat([packed, penalties[problems, positions][:, None]], dim=1)
        rows = self._over_ranks(rows, dist.ReduceOp.SUM)
        return self.gradients.unpacked(rows[:, :-1]), rows[:, -1]

    def add_columns(self, chosen: list[int], atoms: SampleGradients) -> None:
        """Compute the Gram columns of atoms that have none yet, as one product.

        Args:
            chosen: Global indices of the atoms.
            atoms: The atoms.
        """
        new = {number: i for i, number in enumerate(chosen) if number not in self._row_of}
        start, end = len(self._row_of), len(self._row_of) + len(new)
        if end > len(self._columns):  # double the capacity; pages that are never written take no memory
            self._columns = torch.cat([self._columns[:start], self._columns.new_empty(end, len(self.numbers))])
        self._row_of.update({number: start + i for i, number in enumerate(new)})
        if new:
            self._columns[start:end] = atoms.take([*new.values()]).gram(self.gradients)

    def combine(self, supports: Sequence[list[int]], weights: Sequence[Tensor]) -> Tensor:
        """Return the inner product of each atom with weighted sums of chosen atoms.

        Args:
            supports: Global indices of the atoms of each sum.
            weights: Weights of those atoms.

        Returns:
            Inner products, ``(T, n)``.
        """
        matrix = self._columns.new_zeros(len(supports), len(self._row_of))
        for line, support, values in zip(matrix, supports, weights, strict=True):
            line[[self._row_of[number] for number in support]] = values.to(matrix)
        return matrix @ self._columns[: len(self._row_of)]

    def mark(self, line: Tensor, number: int, value: bool) -> None:
        """Set the entry of one atom in a row with an entry per atom of this rank, if the atom is on this rank."""
        line[self.numbers == number] = value

    def _over_ranks(self, values: Tensor, operation: dist.ReduceOp.RedOpType) -> Tensor:
        if self.group is None:
            return values
        # gradients are on the CPU, but NCCL communicates between GPUs
        device = torch.cuda.current_device() if dist.get_backend(self.group) == "nccl" else values.device
        shared = values.to(device)
        dist.all_reduce(shared, operation, self.group)
        return shared.to(values.device)
