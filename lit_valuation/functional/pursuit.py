"""Orthogonal matching pursuit on factored gradients: few samples whose weighted gradients add up to a target.

Minimises ‖Σ wᵢ gᵢ − b‖² + λ ‖w‖² + μ Σ ψᵢ² wᵢ² over weights w ≥ 0 with at most k of them not 0, one atom after the
other: Killamsetty et al. 2021, GRAD-MATCH, arXiv 2103.00123; with the penalty ψ, Sarwar et al. 2024, arXiv 2410.08432.
A step costs one Gram column, O(n (C + d)), and one product with those before it, O(n t); the solution grows by Cholesky
as in Rubinstein, Zibulevsky and Elad 2008. Memory beside the atoms: n numbers for each atom chosen.

Shape suffixes: T targets, n atoms of this rank, C outputs, d width of the last layer's input, k chosen atoms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from lit_core.errors import UserError
from lit_valuation.functional.active_set import ActiveSet
from lit_valuation.functional.atoms import NO_ATOM, Atoms
from lit_valuation.functional.gradients import LastLayerGradients

Rule = Literal["residual", "penalised"]
STEPS_PER_ATOM = 3  # a guard against rounding, as in other solvers with non-negative weights


@dataclass(frozen=True)
class Pursuit:
    """What a pursuit chose.

    Args:
        support: Numbers of the chosen atoms in the order in which they were added, int64 of shape ``(k,)``.
        weights: Their weights, ``(k,)``.
        residual: ‖b − Σ wᵢ gᵢ‖ / ‖b‖; 0 where b is 0.
        nested: Up to this length, a prefix is what the pursuit returns for a budget of that length. It is k unless
            an atom was dropped; longer prefixes are then prefixes of this support only.
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

        Each row is solved for anew when first asked for; where weights must not be negative, some may be 0.
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


def matching_pursuit(
    gradients: LastLayerGradients,
    target: Tensor,
    budget: int,
    *,
    ridge: float = 0.5,
    relative: bool = True,
    psi: Tensor | None = None,
    psi_ridge: float = 0.0,
    rule: Rule = "residual",
    nonnegative: bool = True,
    tolerance: float = 0.0,
    allowed: Tensor | None = None,
    dtype: torch.dtype = torch.float64,
    numbers: Tensor | None = None,
    group: dist.ProcessGroup | None = None,
) -> Pursuit:
    """Choose atoms whose weighted sum comes near a target; see :func:`matching_pursuits` for several targets at once.

    Ends early where no atom brings the sum nearer. Atoms that are equally good up to rounding are taken by number.

    Args:
        gradients: The atoms; of this rank, where there are several.
        target: What to come near, ``(C, d)`` or, with bias, ``(C, d + 1)``, as ``gradients.sum()`` returns.
        budget: Most atoms to choose, 1 or more.
        ridge: λ, 0 or more.
        relative: Whether λ and μ are multiples of the mean squared length of the allowed atoms.
        psi: ψ, one number per atom; None for none.
        psi_ridge: μ, 0 or more.
        rule: What the next atom has most of: ``residual``, the product g·r with what is left; ``penalised``, the fall
            of the objective by that atom alone, (g·r)² / (‖g‖² + λ + μ ψ²).
        nonnegative: Whether weights must be 0 or more; otherwise the sign of a product does not count.
        tolerance: Relative residual at which enough is chosen.
        allowed: Which atoms may be chosen, bool of shape ``(n,)``; None for all.
        dtype: Number format of the solution; products of all atoms are in theirs.
        numbers: Number of each atom, unique over all ranks; None for their positions. Required with a group.
        group: Processes that hold a share of the atoms each and all call this; None for this process alone.

    Returns:
        The choice, on the CPU, the same on every rank.

    Raises:
        UserError: If an argument is out of range, shapes do not match, or the target is not finite.
    """
    [found] = matching_pursuits(
        gradients,
        target[None],
        budget,
        ridge=ridge,
        relative=relative,
        psi=psi,
        psi_ridge=psi_ridge,
        rule=rule,
        nonnegative=nonnegative,
        tolerance=tolerance,
        allowed=allowed,
        dtype=dtype,
        numbers=numbers,
        group=group,
    )
    return found


def matching_pursuits(
    gradients: LastLayerGradients,
    targets: Tensor,
    budget: int | Sequence[int],
    *,
    ridge: float | Sequence[float] = 0.5,
    relative: bool = True,
    psi: Tensor | None = None,
    psi_ridge: float | Sequence[float] = 0.0,
    rule: Rule = "residual",
    nonnegative: bool = True,
    tolerance: float = 0.0,
    allowed: Tensor | None = None,
    dtype: torch.dtype = torch.float64,
    numbers: Tensor | None = None,
    group: dist.ProcessGroup | None = None,
) -> list[Pursuit]:
    """Solve T problems as :func:`matching_pursuit` does each.

    Problems over the same atoms advance together: the new Gram columns of a step are one product, and a column that
    two of them need is computed once. With an ``allowed`` row for each, as for classes, they are solved one by one,
    each over its own atoms only.

    Args:
        gradients: The atoms.
        targets: One for each problem, ``(T, C, d)`` or ``(T, C, d + 1)``; the same one several times for several λ.
        budget: One for all problems or one each.
        ridge: One for all problems or one each.
        relative: See :func:`matching_pursuit`.
        psi: ``(n,)`` for all problems or ``(T, n)``; None for none.
        psi_ridge: One for all problems or one each.
        rule: See :func:`matching_pursuit`.
        nonnegative: See :func:`matching_pursuit`.
        tolerance: See :func:`matching_pursuit`.
        allowed: ``(n,)`` for all problems or ``(T, n)``; None for all atoms.
        dtype: See :func:`matching_pursuit`.
        numbers: See :func:`matching_pursuit`.
        group: See :func:`matching_pursuit`.

    Returns:
        The choices in the order of the targets.

    Raises:
        UserError: As :func:`matching_pursuit`.
    """
    n, problems = len(gradients), len(targets)
    wanted = (gradients.delta.shape[1], gradients.hidden.shape[1] + gradients.bias)
    if targets.shape[1:] != wanted:
        raise UserError(f"target has shape {tuple(targets.shape[1:])}, but must be {wanted}, like the gradients' sum.")
    if not bool(targets.isfinite().all()):
        raise UserError("target is not finite; check the queries, and whether the model's training diverged.")
    if rule not in ("residual", "penalised"):
        raise UserError(f"rule is {rule!r}, but must be residual or penalised; choose one of them.")
    if group is not None and numbers is None:
        raise UserError(
            "numbers is None, but with a group each atom needs its number among those of all ranks; give them."
        )
    for name, rows in (("psi", psi), ("allowed", allowed)):
        if rows is not None and rows.shape not in ((n,), (problems, n)):
            raise UserError(f"{name} has shape {tuple(rows.shape)} for {n} atoms; give one value per atom.")
    if psi is not None and not bool(psi.isfinite().all()):
        raise UserError("psi is not finite; check the features it was computed from.")
    budgets = _each("budget", budget, problems)
    ridges, psi_ridges = _each("ridge", ridge, problems), _each("psi_ridge", psi_ridge, problems)
    for name, value in (("ridge", min(ridges)), ("psi_ridge", min(psi_ridges)), ("tolerance", tolerance)):
        if not 0 <= value < float("inf"):
            raise UserError(f"{name} is {value}, but must be a number of 0 or more; 0 switches it off.")

    device = gradients.delta.device
    numbers = torch.arange(n, device=device) if numbers is None else numbers.to(device)
    psis = (torch.zeros(n) if psi is None else psi).to(gradients.delta).expand(problems, n)
    separate = allowed is not None and allowed.ndim == 2
    found = []
    for part in [slice(t, t + 1) for t in range(problems)] if separate else [slice(None)]:
        share, of_share, psis_of_share = gradients, numbers, psis[part]
        if allowed is not None:
            places = (allowed[part][0] if separate else allowed).to(device).nonzero()[:, 0]
            share, of_share, psis_of_share = gradients.take(places), numbers[places], psis_of_share[:, places]
        atoms = Atoms(share, of_share, group)
        for most in budgets[part]:
            if not 1 <= most <= atoms.count:
                raise UserError(
                    f"budget is {most}, but must be from 1 to the {atoms.count} atoms there are to choose from."
                )
        scale = atoms.mean_square if relative else 1.0
        ridges_T1, psi_ridges_T1 = (
            scale * torch.tensor(values[part]).to(psis_of_share)[:, None] for values in (ridges, psi_ridges)
        )
        penalties = ridges_T1 + psi_ridges_T1 * psis_of_share.square()
        states = [
            _Problem(target, most, gradients.bias, nonnegative, dtype)
            for target, most in zip(targets[part], budgets[part], strict=True)
        ]
        found += _pursue(atoms, states, penalties, rule, tolerance)
    return found


Number = TypeVar("Number", int, float)


def _each(name: str, value: Number | Sequence[Number], problems: int) -> list[Number]:
    values = list(value) if isinstance(value, Sequence) else [value] * problems
    if len(values) != problems:
        raise UserError(f"{name} has {len(values)} values for {problems} targets; give one for all or one each.")
    return values


class _Problem:
    """One target, the atoms chosen for it, and their weights; on the CPU, the same on every rank."""

    def __init__(self, target: Tensor, budget: int, bias: bool, nonnegative: bool, dtype: torch.dtype) -> None:
        self.target, self.budget, self.nested = target.to("cpu", dtype), budget, budget
        self.length = float(self.target.norm())
        self.support: list[int] = []
        self.solution = ActiveSet(budget, nonnegative, dtype)
        self.steps_left = STEPS_PER_ATOM * budget
        self._delta = self.target.new_empty(budget, len(target))
        self._hidden = self.target.new_empty(budget, target.shape[1] - bias)

    def add(self, number: int, atom: LastLayerGradients, penalty: float) -> list[int]:
        """Add an atom; return the numbers of those dropped for it, or its own where it brings nothing but rounding."""
        last = len(self.support)
        atom = LastLayerGradients(atom.delta.to(self.target), atom.hidden.to(self.target), atom.bias)
        self._delta[last], self._hidden[last] = atom.delta[0], atom.hidden[0]
        inner = (self._delta[:last] @ atom.delta[0]) * (self._hidden[:last] @ atom.hidden[0] + float(atom.bias))
        stay = self.solution.add(inner, float(atom.squared_norms()), penalty, float(atom.dot(self.target)))
        self.steps_left -= 1
        if stay is None:
            return [number]
        members = [*self.support, number]
        left = sorted(set(range(last + 1)) - set(stay))
        if left:
            self.nested = min(self.nested, left[0])
            self._delta[: len(stay)], self._hidden[: len(stay)] = self._delta[stay], self._hidden[stay]
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
        """Return what was chosen."""
        support, weights = torch.tensor(self.support, dtype=torch.int64), self.solution.weights.clone()
        nested = min(self.nested, len(support))
        return Pursuit(support, weights, self.residual(), nested, self.solution, self.length)


def _pursue(atoms: Atoms, problems: list[_Problem], penalties: Tensor, rule: Rule, tolerance: float) -> list[Pursuit]:
    """Advance problems over the same atoms together, by an atom each a step."""
    products = torch.stack([atoms.gradients.dot(problem.target.to(penalties.device)) for problem in problems])
    lengths = torch.tensor([problem.length for problem in problems]).to(penalties)
    rounding = 64 * torch.finfo(penalties.dtype).eps * lengths[:, None] * atoms.squares.sqrt()
    # `penalised` compares roots of the falls, which rise with them: a product and its score then share one rounding.
    scales = torch.ones_like(penalties) if rule == "residual" else (atoms.squares + penalties).rsqrt()
    free = torch.ones_like(penalties, dtype=torch.bool)
    running = [i for i, problem in enumerate(problems) if problem.unfinished(tolerance)]
    while running:
        now = [problems[i] for i in running]
        left = products[running] - atoms.combine([p.support for p in now], [p.solution.weights for p in now])
        if not problems[0].solution.nonnegative:
            left.abs_()
        worth = free[running] & (left > rounding[running])
        scores = torch.where(worth, left * scales[running], 0.0)
        best = atoms.best(scores, rounding[running] * scales[running])
        chosen = {i: number for i, number in zip(running, best, strict=True) if number != NO_ATOM}
        running = [*chosen]
        if running:
            factors, costs = atoms.fetch([*chosen.values()], penalties[running])
            atoms.add_columns([*chosen.values()], factors)
            for row, (i, number) in enumerate(chosen.items()):
                dropped = problems[i].add(number, factors.take([row]), float(costs[row]))
                atoms.mark(free[i], number, False)  # for good where it was dropped at once: rounding
                for other in dropped:
                    atoms.mark(free[i], other, other != number)
        running = [i for i in running if problems[i].unfinished(tolerance)]
    return [problem.result() for problem in problems]
