"""Matching pursuits class by class, over one target of a class or several, in one round or more."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lit_core.errors import UserError
from lit_valuation.functional.gradients import SampleGradients
from lit_valuation.functional.k_means import k_means, points_of_gram
from lit_valuation.functional.pursuit import PursuitOptions, Rule, matching_pursuit
from lit_valuation.selectors.base import Pool, Selection, in_turns, split_budget

Targets = Literal["class", "clusters"]
Rest = Literal["leave", "fill"]


@dataclass(frozen=True)
class Matching:
    """How the gradients of queries are matched.

    Args:
        ridge: λ, 0 or more.
        relative: Whether the penalties are multiples of the mean squared norm of a class's gradients.
        seed: Seed of the clusters, 0 or more.
        psi: ψ of each sample of the pool, ``(n,)``; None for none.
        psi_ridge: μ, 0 or more.
        rule: Criterion of the next sample; see :func:`matching_pursuits`.
        n_clusters: Most targets of a class, the sums over clusters of its queries; 1 sums over all of them.
        rest: Whether a pursuit that ends before its budget is spent leaves the rest, or fills it by further rounds.
    """

    ridge: float
    relative: bool
    seed: int
    psi: Tensor | None = None
    psi_ridge: float = 0.0
    rule: Rule = "residual"
    n_clusters: int = 1
    rest: Rest = "leave"

    def options(self, atoms: SampleGradients) -> PursuitOptions:
        """Return the options of pursuits over samples of a class.

        Args:
            atoms: Gradients of all samples of the class, whose mean squared norm the penalties may be relative to.
        """
        scale = float(atoms.squared_norms().double().mean()) if self.relative else 1.0
        return PursuitOptions(self.ridge * scale, False, self.psi_ridge * scale, self.rule)


@dataclass
class _Match:
    """The match of one target.

    Args:
        rounds: The chosen samples of each round, as indices in the pool.
        weights: Their weights.
        residual: ‖b − Σ wᵢ gᵢ‖ / ‖b‖.
        length: ‖b‖.
    """

    rounds: list[Tensor]
    weights: list[Tensor]
    residual: float
    length: float


def match_by_class(pool: Pool, queries: Pool, budget: int, matching: Matching) -> Selection:
    """Match the gradients of each class's queries with the pool's samples of that class.

    Args:
        pool: The owner's samples.
        queries: The hard cases.
        budget: Most samples to choose.
        matching: How they are matched.

    Returns:
        The selection, with the weights of the match and the fact ``relative_residual``; where rounds fill the budget,
        also ``selected_in_round_1`` and so on.

    Raises:
        UserError: If gradients are missing, the budget is below 1, or the pool has no sample of the queries' classes.
    """
    for part, name in ((pool, "pool"), (queries, "queries")):
        if part.gradients is None:
            raise UserError(f"The {name} came without gradients; gather them with the owner's model.")
    shares = split_budget(budget, pool.y, queries.y)
    chosen: dict[int, Tensor] = {}
    matches: list[_Match] = []
    for c in queries.y.unique().tolist():
        chosen[c], of_class = _match_class(pool, queries, c, shares.get(c, 0), matching)
        matches += of_class
    indices = in_turns(chosen, queries.y)
    weights = torch.zeros(len(pool), dtype=torch.float64)
    counts: Counter[int] = Counter()
    for match in matches:
        for number, (rows, values) in enumerate(zip(match.rounds, match.weights, strict=True), 1):
            weights[rows] = values
            counts[number] += len(rows)
    whole = sum(match.length**2 for match in matches)
    left = sum((match.length * match.residual) ** 2 for match in matches)
    facts = {"relative_residual": math.sqrt(left / whole) if whole else 0.0}
    if matching.rest == "fill":
        facts |= {f"selected_in_round_{number}": float(counts[number]) for number in sorted(counts)}
    return Selection(indices, weights[indices].float(), facts)


def _by_size(sums: Tensor) -> Tensor:
    """Number the sums of queries from the one with the most queries on, of equal ones from the first."""
    names, counts = sums.unique(return_counts=True)
    rank = torch.empty_like(names)
    rank[counts.argsort(descending=True, stable=True)] = torch.arange(len(names))
    return rank[torch.searchsorted(names, sums)]


def _match_class(pool: Pool, queries: Pool, c: int, share: int, matching: Matching) -> tuple[Tensor, list[_Match]]:
    """Match the targets of a class; return its samples, the most wanted first, and the matches."""
    assert pool.gradients is not None and queries.gradients is not None
    of_queries = queries.gradients.take((queries.y == c).nonzero().squeeze(1))
    free = pool.y == c
    labels = torch.zeros(len(of_queries), dtype=torch.int64)
    if matching.n_clusters > 1:
        if queries.sums is None:
            labels = k_means(points_of_gram(of_queries.gram(of_queries)), matching.n_clusters, matching.seed)
        else:
            labels = _by_size(queries.sums[queries.y == c])
    parts = split_budget(share, labels.unique().repeat_interleave(share), labels) if share else {}
    options = matching.options(pool.gradients.take(free.nonzero().squeeze(1))) if share else PursuitOptions()
    matches = []
    for cluster in labels.unique().tolist():  # the largest first
        target = of_queries.take((labels == cluster).nonzero().squeeze(1)).sum()
        match = _match(pool.gradients, target, parts.get(cluster, 0), free, options, matching)
        for rows in match.rounds:
            free[rows] = False
        matches.append(match)
    none = torch.empty(0, dtype=torch.int64)
    orders = {cluster: torch.cat([none, *match.rounds]) for cluster, match in enumerate(matches)}
    return in_turns(orders, labels), matches


def _match(
    atoms: SampleGradients, target: Tensor, budget: int, free: Tensor, options: PursuitOptions, matching: Matching
) -> _Match:
    """Match one target, in one round or, to fill the budget, in several, each with the samples that are left."""
    rounds: list[Tensor] = []
    weights: list[Tensor] = []
    free, residual = free.clone(), 1.0
    while budget:
        pursuit = matching_pursuit(atoms, target, budget, options, psi=matching.psi, allowed=free)
        if not len(pursuit.support):
            break
        rounds.append(pursuit.support)
        weights.append(pursuit.weights.double())
        residual = pursuit.residual
        free[pursuit.support] = False
        budget = budget - len(pursuit.support) if matching.rest == "fill" else 0
    length = float(target.double().norm())
    if len(rounds) > 1:
        weights = [values / len(rounds) for values in weights]
        residual = float((target - atoms.take(torch.cat(rounds)).sum(torch.cat(weights))).norm()) / length
    return _Match(rounds, weights, residual, length)
