"""The rows of a table that share most bins with the queries."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from lit_core.errors import UserError
from lit_valuation.functional.binning import Bins, binning_distance
from lit_valuation.selectors.base import Need, Pool, Selection, Selector
from lit_valuation.selectors.by_class import rows_of, select_by_class

_FREQUENT = 5  # distances that the diverse rows are drawn from


class BinningSelector(Selector):
    """Takes the rows at the smallest adaptive binning distance; ties are broken at random (Sarwar et al. 2024).

    Args:
        bins: ``queries`` fits the bins to the queries' values where the owner's range allows (the paper's default),
            ``owner`` to the owner's.
        share: ``nearest`` fills the budget from the smallest distance on; ``minimum`` takes no row beyond the
            smallest distance; ``random`` takes random rows, as many as ``minimum`` would, for comparison.
        diverse: How many rows of each class are drawn instead from the five most frequent distances above the
            smallest, 0 or more; they take turns with the others.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"x"})

    def __init__(
        self, bins: Bins = "queries", share: Literal["nearest", "minimum", "random"] = "nearest", diverse: int = 0
    ) -> None:
        if diverse < 0:
            raise UserError(f"diverse is {diverse}, but must be 0 or more; 0 draws no diverse rows.")
        self.bins, self.share, self.diverse = bins, share, diverse

    def select(self, pool: Pool, queries: Pool, budget: int, seed: int = 0) -> Selection:
        """Choose at most ``budget`` samples; see `Selector.select`."""
        rows, asked = rows_of(pool, queries)
        place = torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed))

        def order(mine: Tensor, its: Tensor, share: int) -> Tensor:
            shuffled = mine[place[mine].argsort()]
            return shuffled[self._order(binning_distance(rows[shuffled], asked[its], self.bins))]

        return select_by_class(pool, queries, budget, order)

    def _order(self, distance: Tensor) -> Tensor:
        """Return which of some shuffled rows to take, the most wanted first."""
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
