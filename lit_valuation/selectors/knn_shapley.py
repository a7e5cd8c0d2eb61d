"""The samples that a nearest-neighbour classifier of the queries gains most from."""

from __future__ import annotations

from typing import ClassVar

from lit_core.errors import UserError
from lit_valuation.functional.knn_shapley import knn_shapley
from lit_valuation.selectors.base import Need, Pool, Selection, Selector
from lit_valuation.selectors.by_class import features_of, select_by_class


class KNNShapleySelector(Selector):
    """Takes the samples of highest Shapley value in a k-nearest-neighbour classifier (Jia et al. 2019).

    The whole pool plays, samples of other classes too: they lower the value of those they are nearer than.

    Args:
        k: Neighbours that the classifier asks, 1 or more.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"features"})

    def __init__(self, k: int = 5) -> None:
        if k < 1:
            raise UserError(f"k is {k}, but must be 1 or more; ask at least one neighbour.")
        self.k = k

    def select(self, pool: Pool, queries: Pool, budget: int, seed: int = 0) -> Selection:
        """Choose at most ``budget`` samples; see `Selector.select`."""
        features, asked = features_of(pool, queries)
        values = knn_shapley(features, pool.y, asked, queries.y, self.k)
        facts = {"value_of_pool": float(values.sum())}
        return select_by_class(
            pool,
            queries,
            budget,
            lambda mine, its, share: mine[values[mine].argsort(descending=True, stable=True)],
            facts,
        )
