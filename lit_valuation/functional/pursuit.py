"""Orthogonal matching pursuit on factored gradients: few samples whose weighted gradients add up to a target.

Minimises ‖Σ wᵢ gᵢ − b‖² + λ ‖w‖² + μ Σ ψᵢ² wᵢ² over weights w ≥ 0 with at most k of them not 0, one atom at a time:
Killamsetty et al. 2021, GRAD-MATCH, arXiv 2103.00123; with the penalty ψ, Sarwar et al. 2024, arXiv 2410.08432.
A step costs one Gram column, O(n (C + d)), and one product with the earlier ones, O(n t); the solution grows by
Cholesky as in Rubinstein, Zibulevsky and Elad 2008. Memory beside the atoms: n numbers for each chosen atom.

Shape suffixes: T targets, n atoms of this rank, C outputs, d width of the last layer's input, k chosen atoms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from lit_core.errors import UserError
from lit_valuation.functional.atoms import NO_ATOM, Atoms
from lit_valuation.functional.gradients import SampleGradients
from lit_valuation.functional.pursuit_problem import Problem, Pursuit

Rule = Literal["residual", "penalised"]


@dataclass(frozen=True)
class PursuitOptions:
    """How a pursuit chooses and weights atoms.

    Args:
        ridge: λ, 0 or more; one for all targets or one each.
        relative: Whether λ and μ are multiples of the mean squared length of the allowed atoms.
        psi_ridge: μ, 0 or more; one for all targets or one each.
        rule: What the next atom maximises: ``residual``, the product g·r with the residual; ``penalised``, the decrease
            of the objective by that atom alone, (g·r)² / (‖g‖² + λ + μ ψ²).
        nonnegative: Whether weights must be 0 or more; otherwise the sign of a product does not count.
        tolerance: Relative residual at which the pursuit ends.
        dtype: Number format of the solution. Products with all atoms keep the atoms' format.

    Raises:
        UserError: If a value is out of range.
    """

    ridge: float | Sequence[float] = 0.5
    relative: bool = True
    psi_ridge: float | Sequence[float] = 0.0
    rule: Rule = "residual"
    nonnegative: bool = True
    tolerance: float = 0.0
    dtype: torch.dtype = torch.float64

    def __post_init__(self) -> None:
        if self.rule not in ("residual", "penalised"):
            raise UserError(f"rule is {self.rule!r}, but must be residual or penalised; choose one of them.")
        for name in ("ridge", "psi_ridge", "tolerance"):
            value = getattr(self, name)
            for number in value if isinstance(value, Sequence) else [value]:
                if not 0 <= number < float("inf"):
                    raise UserError(f"{name} is {number}, but must be a number of 0 or more; 0 switches it off.")


DEFAULT = PursuitOptions()


def matching_pursuit(
    gradients: SampleGradients,
    target: Tensor,
    budget: int,
    options: PursuitOptions = DEFAULT,
    *,
    psi: Tensor | None = None,
    allowed: Tensor | None = None,
    numbers: Tensor | None = None,
    group: dist.ProcessGroup | None = None,
) -> Pursuit:
    """Choose atoms whose weighted sum is near a target; see :func:`matching_pursuits` for several targets at once.

    Ends early if no atom decreases the distance. Of atoms that are equally good up to rounding, the one with the
    smallest index is chosen.

    Args:
        gradients: The atoms; those of this rank, where there are several.
        target: The target, ``(C, d)`` or, with bias, ``(C, d + 1)``, as ``gradients.sum()`` returns.
        budget: Largest number of atoms to choose, 1 or more.
        options: How atoms are chosen and weighted.
        psi: ψ, ``(n,)``; None for none.
        allowed: Which atoms may be chosen, bool of shape ``(n,)``; None for all.
        numbers: Index of each atom, unique over all ranks; None for their positions. Required with a group.
        group: Processes that hold a share of the atoms each and all call this; None for this process alone.

    Returns:
        The choice, on the CPU, the same on every rank.

    Raises:
        UserError: If an argument is out of range, shapes do not match, or the target is not finite.
    """
    shared = {"psi": psi, "allowed": allowed, "numbers": numbers}
    [pursuit] = matching_pursuits(gradients, target[None], budget, options, **shared, group=group)
    return pursuit


def matching_pursuits(
    gradients: SampleGradients,
    targets: Tensor,
    budget: int | Sequence[int],
    options: PursuitOptions = DEFAULT,
    *,
    psi: Tensor | None = None,
    allowed: Tensor | None = None,
    numbers: Tensor | None = None,
    group: dist.ProcessGroup | None = None,
) -> list[Pursuit]:
    """Solve T problems as :func:`matching_pursuit` solves each.

    1. Check targets ``(T, C, d)``, budgets ``(T,)`` and penalties; with a row of ``allowed`` per target, as for
       classes, steps 2 to 6 are done for each target over its own atoms, otherwise once for all T targets.
    2. Penalties λ + μ ψ² of each problem and atom, ``(T, n)``, and products of all atoms with the targets, ``(T, n)``.
    3. Residual products: those products minus the Gram columns of the chosen atoms times their weights, ``(T, n)``.
    4. Scores by the rule, ``(T, n)``; each problem chooses its best atom over all ranks, ``(T,)``. A problem without
       an atom above rounding ends.
    5. The chosen atoms' factors, ``(T, C)`` and ``(T, d)``, come from the ranks that hold them. Their Gram columns,
       ``(T, n)``, are one product; a column that two problems need is computed once.
    6. Each problem adds its atom to its active set and solves for the k weights, ``(k,)``; atoms whose weight would be
       negative are removed and may be chosen again. Steps 3 to 6 repeat until the budget or the tolerance is reached.

    Args:
        gradients: The atoms.
        targets: One for each problem, ``(T, C, d)`` or ``(T, C, d + 1)``; the same one several times for several λ.
        budget: One for all problems or one each.
        options: How atoms are chosen and weighted.
        psi: ``(n,)`` for all problems or ``(T, n)``; None for none.
        allowed: ``(n,)`` for all problems or ``(T, n)``; None for all atoms.
        numbers: See :func:`matching_pursuit`.
        group: See :func:`matching_pursuit`.

    Returns:
        The choices in the order of the targets.

    Raises:
        UserError: As :func:`matching_pursuit`.
    """
    n, problems = len(gradients), len(targets)
    _check(gradients, targets, psi, allowed)
    if group is not None and numbers is None:
        raise UserError("numbers is None, but with a group each atom needs an index that is unique over all ranks.")
    budgets = _each("budget", budget, problems)
    ridges = _each("ridge", options.ridge, problems)
    psi_ridges = _each("psi_ridge", options.psi_ridge, problems)

    device = gradients.like.device
    numbers = torch.arange(n, device=device) if numbers is None else numbers.to(device)
    psis = (torch.zeros(n) if psi is None else psi).to(gradients.like).expand(problems, n)
    separate = allowed is not None and allowed.ndim == 2
    pursuits = []
    for part in [slice(t, t + 1) for t in range(problems)] if separate else [slice(None)]:
        share, of_share, psis_of_share = gradients, numbers, psis[part]
        if allowed is not None:
            positions = (allowed[part][0] if separate else allowed).to(device).nonzero()[:, 0]
            share, of_share, psis_of_share = gradients.take(positions), numbers[positions], psis_of_share[:, positions]
        atoms = Atoms(share, of_share, group)
        for most in budgets[part]:
            if not 1 <= most <= atoms.count:
                raise UserError(
                    f"budget is {most}, but must be from 1 to the {atoms.count} atoms there are to choose from."
                )
        scale = atoms.mean_square if options.relative else 1.0
        ridges_T1, psi_ridges_T1 = (
            scale * torch.tensor(values[part]).to(psis_of_share)[:, None] for values in (ridges, psi_ridges)
        )
        penalties = ridges_T1 + psi_ridges_T1 * psis_of_share.square()
        states = [
            Problem(target, most, options.nonnegative, options.dtype)
            for target, most in zip(targets[part], budgets[part], strict=True)
        ]
        pursuits += _pursue(atoms, states, penalties, options)
    return pursuits


def _check(gradients: SampleGradients, targets: Tensor, psi: Tensor | None, allowed: Tensor | None) -> None:
    """Raise an error if shapes do not match or a number is not finite."""
    n, problems = len(gradients), len(targets)
    if targets.shape[1:] != gradients.shape:
        shape = tuple(targets.shape[1:])
        raise UserError(f"target has shape {shape}, but must be {gradients.shape}, like the gradients' sum.")
    if not bool(targets.isfinite().all()):
        raise UserError("target is not finite; check the queries, and whether the model's training diverged.")
    for name, rows in (("psi", psi), ("allowed", allowed)):
        if rows is not None and rows.shape not in ((n,), (problems, n)):
            raise UserError(f"{name} has shape {tuple(rows.shape)} for {n} atoms; give one value per atom.")
    if psi is not None and not bool(psi.isfinite().all()):
        raise UserError("psi is not finite; check the features it was computed from.")


Number = TypeVar("Number", int, float)


def _each(name: str, value: Number | Sequence[Number], problems: int) -> list[Number]:
    values = list(value) if isinstance(value, Sequence) else [value] * problems
    if len(values) != problems:
        raise UserError(f"{name} has {len(values)} values for {problems} targets; give one for all or one each.")
    return values


def _pursue(atoms: Atoms, problems: list[Problem], penalties: Tensor, options: PursuitOptions) -> list[Pursuit]:
    """Advance problems over the same atoms together, by one atom each per step.

    Args:
        atoms: The atoms, n of them on this rank.
        problems: The problems, T of them.
        penalties: λ + μ ψ² of each problem and atom, ``(T, n)``.
        options: How atoms are chosen.
    """
    products = torch.stack([atoms.gradients.dot(problem.target.to(penalties.device)) for problem in problems])
    lengths = torch.tensor([problem.length for problem in problems]).to(penalties)
    rounding = 64 * torch.finfo(penalties.dtype).eps * lengths[:, None] * atoms.squares.sqrt()
    # `penalised` compares roots of the falls, which rise with them: a product and its score then share one rounding.
    scales = torch.ones_like(penalties) if options.rule == "residual" else (atoms.squares + penalties).rsqrt()
    free = torch.ones_like(penalties, dtype=torch.bool)
    running = [i for i, problem in enumerate(problems) if problem.unfinished(options.tolerance)]
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
                removed = problems[i].add(number, factors.take([row]), float(costs[row]))
                atoms.mark(free[i], number, False)  # stays marked where it was removed at once: rounding
                for other in removed:
                    atoms.mark(free[i], other, other != number)
        running = [i for i in running if problems[i].unfinished(options.tolerance)]
    return [problem.result() for problem in problems]
