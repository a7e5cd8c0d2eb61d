"""A selector of samples whose weighted gradients match the gradient of the queries."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor

from lit_core.errors import UserError, check_at_least
from lit_valuation.functional.pursuit import PursuitOptions, Rule, matching_pursuits
from lit_valuation.selectors.base import Need, Pool, Selection, Selector, in_turns, split_budget


class GradientMatchingSelector(Selector):
    """Matches, class by class, the sum of the queries' last-layer gradients by orthogonal matching pursuit.

    This is the functional similarity of Sarwar et al. 2024, after GRAD-MATCH of Killamsetty et al. 2021. The selector
    stops before the budget is spent if no further sample reduces the residual. It reports ``relative_residual``,
    √(Σ ‖r_c‖² / Σ ‖b_c‖²) over the classes c of the queries.

    Args:
        ridge: λ, the penalty on squared weights, 0 or more.
        relative: Whether λ is a multiple of the mean squared norm of a class's gradients; the paper's code uses an
            absolute value of 0.5.

    Raises:
        UserError: If the penalty is negative or not finite.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"gradients"})

    def __init__(self, ridge: float = 0.01, relative: bool = True) -> None:
        check_at_least(0, ridge=ridge)
        self.ridge, self.relative = ridge, relative

    def select(self, pool: Pool, queries: Pool, budget: int, seed: int | None = None) -> Selection:
        """Choose at most ``budget`` samples; see `Selector.select`."""
        return match_by_class(pool, queries, budget, ridge=self.ridge, relative=self.relative)


def match_by_class(
    pool: Pool,
    queries: Pool,
    budget: int,
    *,
    ridge: float,
    relative: bool,
    psi: Tensor | None = None,
    psi_ridge: float = 0.0,
    rule: Rule = "residual",
) -> Selection:
    """Match the gradient of each class's queries with the pool's samples of that class.

    Args:
        pool: The owner's samples.
        queries: The hard cases.
        budget: Most samples to choose.
        ridge: λ, 0 or more.
        relative: Whether the penalties are multiples of the mean squared norm of a class's gradients.
        psi: ψ of each sample of the pool, ``(n,)``; None for none.
        psi_ridge: μ, 0 or more.
        rule: Criterion of the next sample; see :func:`matching_pursuits`.

    Returns:
        The selection, with the weights of the match and the fact ``relative_residual``.

    Raises:
        UserError: If gradients are missing, the budget is below 1, or the pool has no sample of the queries' classes.
    """
    for part, name in ((pool, "pool"), (queries, "queries")):
        if part.gradients is None:
            raise UserError(f"The {name} came without gradients; gather them with the owner's model.")
    assert pool.gradients is not None and queries.gradients is not None
    shares = split_budget(budget, pool.y, queries.y)
    classes = [int(c) for c in queries.y.unique()]
    targets = {c: queries.gradients.take((queries.y == c).nonzero().squeeze(1)).sum() for c in classes}
    found = matching_pursuits(
        pool.gradients,
        torch.stack([targets[c] for c in shares]),
        list(shares.values()),
        PursuitOptions(ridge=ridge, relative=relative, psi_ridge=psi_ridge, rule=rule),
        allowed=torch.stack([pool.y == c for c in shares]),
        psi=psi,
    )
    pursuits = dict(zip(shares, found, strict=True))
    indices = in_turns({c: pursuit.support for c, pursuit in pursuits.items()}, queries.y)
    weights = torch.zeros(len(pool), dtype=torch.float64)
    for pursuit in found:
        weights[pursuit.support] = pursuit.weights.double()
    squares = {c: float(target.square().sum()) for c, target in targets.items()}
    fractions = {c: pursuits[c].residual ** 2 if c in pursuits else 1.0 for c in classes}
    total = sum(squares.values())
    residual = math.sqrt(sum(squares[c] * fractions[c] for c in classes) / total) if total else 0.0
    return Selection(indices, weights[indices].float(), {"relative_residual": residual})
