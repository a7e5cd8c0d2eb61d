"""A selector that matches gradients and penalises samples whose features are far from the queries."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_core.errors import UserError, check_at_least
from lit_core.seeds import part_seed
from lit_valuation.functional.median import geometric_median, psi
from lit_valuation.functional.pursuit import Rule
from lit_valuation.selectors.base import Need, Pool, Selection, Selector
from lit_valuation.selectors.by_class import features_of
from lit_valuation.selectors.matching import Matching, match_by_class


class FuncFeatSelector(Selector):
    """Matches gradients with a penalty on the weights of samples far from the queries (FuncFeat, Sarwar et al. 2024).

    ψ of a sample is the distance of its features from the geometric median of its class's queries, scaled to a median
    of 1 over the pool's samples of that class. The selector reports ``relative_residual``, as
    `GradientMatchingSelector` does, and ``mean_psi``, the mean unscaled distance of the chosen samples.

    Args:
        ridge: λ, the penalty on squared weights, 0 or more.
        psi_ridge: μ, the penalty on squared weights times ψ², 0 or more.
        relative: Whether λ and μ are multiples of the mean squared norm of a class's gradients; the paper's code uses
            absolute values of 0.5 and 2 to 200.
        rule: Criterion of the next sample: ``residual``, as in the paper, takes the largest inner product with the
            residual, which does not depend on ψ; ``penalised`` takes the largest decrease of the whole objective.

    Raises:
        UserError: If a penalty is negative or not finite.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"features", "gradients"})

    def __init__(
        self, ridge: float = 0.01, psi_ridge: float = 0.1, relative: bool = True, rule: Rule = "penalised"
    ) -> None:
        check_at_least(0, ridge=ridge, psi_ridge=psi_ridge)
        self.ridge, self.psi_ridge, self.relative, self.rule = ridge, psi_ridge, relative, rule

    def select(self, pool: Pool, queries: Pool, budget: int, seed: int | None = None) -> Selection:
        """Choose at most ``budget`` samples; see `Selector.select`."""
        distances, scaled = psi_by_class(pool, queries)
        matching = Matching(self.ridge, self.relative, part_seed(seed), scaled, self.psi_ridge, self.rule)
        selection = match_by_class(pool, queries, budget, matching)
        if not len(selection.indices):
            return selection
        mean = float(distances[selection.indices].mean())
        return replace(selection, facts={**selection.facts, "mean_psi": mean})


def psi_by_class(pool: Pool, queries: Pool) -> tuple[Tensor, Tensor]:
    """Compute ψ of each sample of the pool.

    Args:
        pool: The owner's samples.
        queries: The hard cases.

    Returns:
        ψ and scaled ψ, each ``(n,)``, with zeros for samples whose class no query has.

    Raises:
        UserError: If features are missing, differ in width, or are not finite.
    """
    features, query_features = features_of(pool, queries)
    if not bool(features.isfinite().all()):
        raise UserError("features of the pool are not finite; check the encoder and the owner's samples.")
    distances = torch.zeros(len(pool), dtype=features.dtype)
    scaled = torch.zeros_like(distances)
    for c in queries.y.unique():
        in_class = pool.y == c
        if not in_class.any():
            continue
        distances[in_class] = psi(
            features[in_class], geometric_median(F.normalize(query_features[queries.y == c], dim=1))
        )
        median = distances[in_class].median()
        scaled[in_class] = distances[in_class] / median if median > 0 else distances[in_class]
    return distances, scaled
