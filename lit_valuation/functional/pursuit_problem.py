"""The state and the result of a matching pursuit for one target: the active set of atoms and their weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from lit_valuation.functional.active_set import ActiveSet
from lit_valuation.functional.gradients import SampleGradients

STEPS_PER_ATOM = 3  # a guard against rounding, as in other solvers with non-negative weights


@dataclass(frozen=True)
class Pursuit:
    """The result of a pursuit.

    Args:
        support: Indices of the chosen atoms in the order in which they were added, int64 of shape ``(k,)``.
        weights: Their weights, ``(k,)``.
        residual: ‖b − Σ wᵢ gᵢ‖ / ‖b‖; 0 where b is 0.
        nested: Length up to which a prefix is the result of the pursuit for a budget of that length. It is k unless
            an atom was removed; longer prefixes are then prefixes of this support only.
        solution: The weights' equations.
        length: ‖b‖.
    """

    support: Tensor
    weights: Tensor
    residual: float
    nested: int
    solution: ActiveSet = field(repr=False)
    length: float = field(repr=False)

    @cached_property
    def path(self) -> Tensor:
        """Weights of each prefix of the support, ``(k, k)`` and lower triangular: row t holds those of t + 1 atoms.

        All rows are solved for when this is first read. Where weights must not be negative, some may be 0.
        """
        return self.solution.path()

    @cached_property
    def residuals(self) -> Tensor:
        """‖b − Σ wᵢ gᵢ‖ / ‖b‖ for each prefix, from none to all, ``(k + 1,)``; zeros where b is 0."""
        first = self.path.new_full((1,), float(self.length > 0))
        return torch.cat([first, relative_residual(self.solution, self.path, self.length)])


def relative_residual(solution: ActiveSet, weights: Tensor, length: float) -> Tensor:
    """Return ‖b − Σ wᵢ gᵢ‖ / ‖b‖ from inner products alone.

    Args:
        solution: The chosen atoms, k of them.
        weights: Rows of weights, ``(..., k)``.
        length: ‖b‖, above 0.
    """
    explained = 2 * weights @ solution.products - ((weights @ solution.gram) * weights).sum(-1)
    return (1 - explained / length**2).clamp(min=0).sqrt()


class Problem:
    """One target, its active set of atoms and their weights, on the CPU and the same on every rank.

    Args:
        target: The target.
        budget: Largest number of atoms.
        nonnegative: Whether weights must be 0 or more.
        dtype: Number format of the solution.
    """

    def __init__(self, target: Tensor, budget: int, nonnegative: bool, dtype: torch.dtype) -> None:
        self.target, self.budget, self.nested = target.to("cpu", dtype), budget, budget
        self.length = float(self.target.norm())
        self.support: list[int] = []
        self.solution = ActiveSet(budget, nonnegative, dtype)
        self.steps_left = STEPS_PER_ATOM * budget
        self._rows = self.target.new_empty(0, 0)  # the active atoms, packed

    def add(self, number: int, atom: SampleGradients, penalty: float) -> list[int]:
        """Add an atom to the active set.

        Args:
            number: Index of the atom.
            atom: Its gradient.
            penalty: Its penalty, λ + μ ψ².

        Returns:
            Indices of atoms removed because their weight became negative, or the new atom's own index if it is
            linearly dependent up to rounding.
        """
        last = len(self.support)
        row = atom.packed().to(self.target)
        if not self._rows.numel():
            self._rows = row.new_empty(self.budget, row.shape[1])
        self._rows[last] = row[0]
        atom = atom.unpacked(row)
        inner = atom.unpacked(self._rows[:last]).gram(atom)[:, 0] if last else row.new_empty(0)
        stay = self.solution.add(inner, float(atom.squared_norms()), penalty, float(atom.dot(self.target)))
        self.steps_left -= 1
        if stay is None:
            return [number]
        members = [*self.support, number]
        left = sorted(set(range(last + 1)) - set(stay))
        if left:
            self.nested = min(self.nested, left[0])
            self._rows[: len(stay)] = self._rows[stay]
        self.support = [members[position] for position in stay]
        return [members[position] for position in left]

    def unfinished(self, tolerance: float) -> bool:
        """Return whether another atom may be added."""
        room = len(self.support) < self.budget and self.steps_left > 0 and self.length > 0
        return room and (tolerance == 0 or self.residual() > tolerance)

    def residual(self) -> float:
        """Return ‖b − Σ wᵢ gᵢ‖ / ‖b‖; 0 where b is 0."""
        return float(relative_residual(self.solution, self.solution.weights, self.length)) if self.length else 0.0

    def result(self) -> Pursuit:
        """Return the result."""
        support, weights = torch.tensor(self.support, dtype=torch.int64), self.solution.weights.clone()
        nested = min(self.nested, len(support))
        return Pursuit(support, weights, self.residual(), nested, self.solution, self.length)
