"""A selector of table rows by their adaptive binning distance from the queries."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from lit_core.errors import check_at_least
from lit_core.seeds import part_seed
from lit_valuation.functional.binning import Bins, binning_distance
from lit_valuation.selectors.base import Need, Pool, Selection, Selector
from lit_valuation.selectors.by_class import rows_of, select_by_class

_FREQUENT = 5  # number of most frequent distances from which diverse rows are drawn


class BinningSelector(Selector):
    """Takes the rows with the smallest adaptive binning distance (Sarwar et al. 2024); ties are broken at random.

    Args:
        bins: ``queries`` fits the bins to the queries' values if the owner's range allows it (the paper's default);
            ``owner`` fits them to the owner's values.
        share: ``nearest`` fills the budget in order of distance; ``minimum`` takes only rows at the smallest distance;
            ``random`` takes as many rows as ``minimum``, but at random, for comparison.
        diverse: Number of rows of each class that are drawn from the five most frequent distances above the smallest
            instead, 0 or more. They alternate with the others.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"x"})

    def __init__(
        self, bins: Bins = "queries", share: Literal["nearest", "minimum", "random"] = "nearest", diverse: int = 0
    ) -> None:
        check_at_least(0, diverse=diverse)
        self.bins, self.share, self.diverse = bins, share, diverse

    def select(self, pool: Pool, queries: Pool, budget: int, seed: int | None = None) -> Selection:
        """Choose at most ``budget`` samples; see `Selector.select`."""
        rows, query_rows = rows_of(pool, queries)
        rank = torch.randperm(len(pool), generator=torch.Generator().manual_seed(part_seed(seed)))

        def order(candidates: Tensor, of_queries: Tensor, share: int) -> Tensor:
            shuffled = candidates[rank[candidates].argsort()]
            return shuffled[self._order(binning_distance(rows[shuffled], query_rows[of_queries], self.bins))]

        return select_by_class(pool, queries, budget, order)

    def _order(self, distance: Tensor) -> Tensor:
        """Return the positions of shuffled rows, the most wanted first."""
        at_minimum = distance == distance.min()
        if self.share == "random":
            near = torch.arange(int(at_minimum.sum()))
        else:
            near = distance.argsort(stable=True)
            near = near[: int(at_minimum.sum())] if self.share == "minimum" else near
        values, counts = distance[~at_minimum].unique(return_counts=True)
        frequent = values[counts.argsort(descending=True, stable=True)[:_FREQUENT]]
        diverse = torch.isin(distance, frequent).nonzero().squeeze(1)[: self.diverse]
        near = near[~torch.isin(near, diverse)]
        turn = torch.cat([torch.arange(len(near)) * 2, torch.arange(len(diverse)) * 2 + 1])
        return torch.cat([near, diverse])[turn.argsort()]
