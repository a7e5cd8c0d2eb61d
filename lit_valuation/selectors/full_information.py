"""A selector that shares everything, the upper reference for smaller selections."""

from __future__ import annotations

from typing import ClassVar

import torch

from lit_core.errors import UserError
from lit_valuation.selectors.base import Need, Pool, Selection, Selector
from lit_valuation.selectors.by_class import select_by_class


class FullInformation(Selector):
    """Takes every sample of the queries' classes, in the order of the pool within a class.

    A budget that is too small for all of them is refused.
    """

    needs: ClassVar[frozenset[Need]] = frozenset()

    def select(self, pool: Pool, queries: Pool, budget: int, seed: int | None = None) -> Selection:
        """Choose all samples of the queries' classes; see `Selector.select`.

        Raises:
            UserError: If there are more samples than the budget allows, or as in `Selector.select`.
        """
        selection = select_by_class(pool, queries, budget, lambda candidates, of_queries, share: candidates)
        wanted = int(torch.isin(pool.y, queries.y).sum())
        if wanted > budget:
            raise UserError(
                f"budget is {budget}, but FullInformation shares all {wanted} samples of the queries' classes; give "
                "at least that many, or another selector."
            )
        return selection
