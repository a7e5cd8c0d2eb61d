"""A selector of samples with the highest Shapley values in a nearest-neighbour classifier of the queries."""

from __future__ import annotations

from typing import ClassVar

from lit_core.errors import UserError, check_at_least
from lit_valuation.functional.knn_shapley import knn_shapley
from lit_valuation.selectors.base import Need, Pool, Selection, Selector
from lit_valuation.selectors.by_class import features_of, select_by_class


class KNNShapleySelector(Selector):
    """Takes the samples with the highest Shapley values in a k-nearest-neighbour classifier (Jia et al. 2019).

    The values are computed over the whole pool. Samples of other classes lower the values of samples that are farther
    from the queries than they are. Targets that are not classes are refused. The selector reports ``value_of_pool``,
    the sum of all values.

    Args:
        k: Number of neighbours of the classifier, 1 or more.

    Raises:
        UserError: If ``k`` is below 1.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"features"})

    def __init__(self, k: int = 5) -> None:
        check_at_least(1, k=k)
        self.k = k

    def select(self, pool: Pool, queries: Pool, budget: int, seed: int | None = None) -> Selection:
        """Choose at most ``budget`` samples; see `Selector.select`."""
        if pool.values is not None or queries.values is not None:
            raise UserError(
                "KNNShapleySelector values samples by their classes, but the targets are labels or values; take "
                "another selector, such as FeatureSimilaritySelector or GradientMatchingSelector."
            )
        features, query_features = features_of(pool, queries)
        values = knn_shapley(features, pool.y, query_features, queries.y, self.k)
        facts = {"value_of_pool": float(values.sum())}
        return select_by_class(
            pool,
            queries,
            budget,
            lambda candidates, of_queries, share: candidates[values[candidates].argsort(descending=True, stable=True)],
            facts,
        )
