"""Gradient matching that prefers samples which also look like the queries."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_core.errors import UserError
from lit_valuation.functional.median import geometric_median, psi
from lit_valuation.functional.pursuit import Rule
from lit_valuation.selectors.base import Need, Pool, Selection, Selector
from lit_valuation.selectors.by_class import features_of
from lit_valuation.selectors.gradient_matching import check_penalty, match_by_class


class FuncFeatSelector(Selector):
    """Matches gradients with a penalty on the weight of samples far from the queries (FuncFeat, Sarwar et al. 2024).

    ψ of a sample is its distance from the geometric median of the features of its class's queries, scaled to a median
    of 1 over the pool's samples of that class. Its facts: ``relative_residual``, as `GradientMatchingSelector`, and
    ``mean_psi``, the unscaled distance over what was chosen.

    Args:
        ridge: λ, the penalty on squared weights, 0 or more.
        psi_ridge: μ, the penalty on squared weights times ψ², 0 or more.
        relative: Whether λ and μ are multiples of the mean squared length of a class's gradients; the paper's code
            takes 0.5 and 2 to 200 as they are.
        rule: What the next sample has most of: ``residual``, as in the paper, the product with what is left, which
            does not look at ψ; ``penalised``, the fall of the whole objective, which does.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"features", "gradients"})

    def __init__(
        self, ridge: float = 0.01, psi_ridge: float = 0.1, relative: bool = True, rule: Rule = "penalised"
    ) -> None:
        check_penalty("ridge", ridge)
        check_penalty("psi_ridge", psi_ridge)
        self.ridge, self.psi_ridge, self.relative, self.rule = ridge, psi_ridge, relative, rule

    def select(self, pool: Pool, queries: Pool, budget: int, seed: int = 0) -> Selection:
        """Choose at most ``budget`` samples; see `Selector.select`."""
        distances, scaled = psi_by_class(pool, queries)
        selection = match_by_class(
            pool,
            queries,
            budget,
            ridge=self.ridge,
            relative=self.relative,
            psi=scaled,
            psi_ridge=self.psi_ridge,
            rule=self.rule,
        )
        if not len(selection.indices):
            return selection
        mean = float(distances[selection.indices].mean())
        return replace(selection, facts={**selection.facts, "mean_psi": mean})


def psi_by_class(pool: Pool, queries: Pool) -> tuple[Tensor, Tensor]:
    """Return ψ of each sample of the pool, as it is and scaled; zeros where no query has its class.

    Args:
        pool: The owner's samples.
        queries: The hard cases.

    Raises:
        UserError: If features are missing, of another width, or not finite.
    """
    features, asked = features_of(pool, queries)
    if not bool(features.isfinite().all()):
        raise UserError("features of the pool are not finite; check the encoder and the owner's samples.")
    distances = torch.zeros(len(pool), dtype=features.dtype)
    scaled = torch.zeros_like(distances)
    for c in queries.y.unique():
        mine = pool.y == c
        if not mine.any():
            continue
        distances[mine] = psi(features[mine], geometric_median(F.normalize(asked[queries.y == c], dim=1)))
        middle = distances[mine].median()
        scaled[mine] = distances[mine] / middle if middle > 0 else distances[mine]
    return distances, scaled
