"""A selector of samples that cover the owner's data, independent of the queries' features."""

from __future__ import annotations

from typing import ClassVar

from lit_valuation.functional.coresets import k_center
from lit_valuation.selectors.base import Need, Pool, Selection, Selector
from lit_valuation.selectors.by_class import features_of, select_by_class


class KCenterSelector(Selector):
    """Takes in each class the samples farthest from those taken before (Sener and Savarese 2018, arXiv 1708.00489).

    It uses the queries' classes but not their features, so it is a baseline for what those features add.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"features"})

    def select(self, pool: Pool, queries: Pool, budget: int, seed: int | None = None) -> Selection:
        """Choose at most ``budget`` samples; see `Selector.select`."""
        features, _ = features_of(pool, queries)
        return select_by_class(
            pool,
            queries,
            budget,
            lambda candidates, of_queries, share: candidates[k_center(features[candidates], share)[0]],
        )
