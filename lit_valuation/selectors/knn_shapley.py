"""A selector of samples with the highest Shapley values in a nearest-neighbour model of the queries."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from lit_core.errors import UserError, check_at_least
from lit_valuation.functional.knn_shapley import knn_shapley, knn_shapley_of_values
from lit_valuation.selectors.base import Need, Pool, Selection, Selector
from lit_valuation.selectors.by_class import features_of, select_by_class


class KNNShapleySelector(Selector):
    """Takes the samples with the highest Shapley values in a k-nearest-neighbour model (Jia et al. 2019).

    The values are computed over the whole pool. Samples of other classes lower the values of samples that are farther
    from the queries than they are. Where targets are labels, the model predicts each of them, and a value is the mean
    over the labels. Where they are numbers, it is a regression by the mean of the neighbours, in standard deviations of
    the pool's columns, in which a missing neighbour counts as the pool's mean. The selector reports ``value_of_pool``,
    the sum of all values. Texts with a target per token are refused.

    Args:
        k: Number of neighbours of the model, 1 or more.

    Raises:
        UserError: If ``k`` is below 1.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"features"})

    def __init__(self, k: int = 5) -> None:
        check_at_least(1, k=k)
        self.k = k

    def select(self, pool: Pool, queries: Pool, budget: int, seed: int | None = None) -> Selection:
        """Choose at most ``budget`` samples; see `Selector.select`."""
        values = self._values(pool, queries)
        return select_by_class(
            pool,
            queries,
            budget,
            lambda candidates, of_queries, share: candidates[values[candidates].argsort(descending=True, stable=True)],
            {"value_of_pool": float(values.sum())},
        )

    def _values(self, pool: Pool, queries: Pool) -> Tensor:
        if pool.target in ("tags", "text"):
            raise UserError(
                "KNNShapleySelector predicts one target per sample, but texts have one per token; take another "
                "selector, such as FeatureSimilaritySelector or GradientMatchingSelector."
            )
        features, query_features = features_of(pool, queries)
        if pool.values is None or queries.values is None:
            return knn_shapley(features, pool.y, query_features, queries.y, self.k)
        if pool.target == "labels":
            return knn_shapley(features, pool.values, query_features, queries.values, self.k)
        mean, scale = pool.values.double().mean(0), pool.values.double().std(0, correction=0)
        scale = torch.where(scale > 0, scale, 1)
        own, wanted = ((part.double() - mean) / scale for part in (pool.values, queries.values))
        return knn_shapley_of_values(features, own, query_features, wanted, self.k)
