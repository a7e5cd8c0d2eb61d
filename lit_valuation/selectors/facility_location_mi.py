"""A selector of samples that are near the queries without being redundant: facility-location mutual information."""

from __future__ import annotations

from typing import ClassVar

from lit_core.errors import check_at_least
from lit_valuation.functional.coresets import Variant, facility_location_mi
from lit_valuation.selectors.base import Need, Pool, Selection, Selector
from lit_valuation.selectors.by_class import features_of, select_by_class


class FacilityLocationMISelector(Selector):
    """Maximises the facility-location mutual information with the queries, greedily (Kaushal et al. 2021).

    Args:
        variant: ``queries`` (FLQMI) covers the queries and is cheap; ``pool`` (FLVMI) represents the parts of the pool
            that are near queries, at a cost quadratic in the samples of a class.
        eta: Weight of being near a query relative to representing the others, 0 or more.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"features"})

    def __init__(self, variant: Variant = "queries", eta: float = 1.0) -> None:
        check_at_least(0, eta=eta)
        self.variant, self.eta = variant, eta

    def select(self, pool: Pool, queries: Pool, budget: int, seed: int | None = None) -> Selection:
        """Choose at most ``budget`` samples; see `Selector.select`."""
        features, query_features = features_of(pool, queries)
        return select_by_class(
            pool,
            queries,
            budget,
            lambda candidates, of_queries, share: candidates[
                facility_location_mi(features[candidates], query_features[of_queries], share, self.variant, self.eta)[0]
            ],
        )
