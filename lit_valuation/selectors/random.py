"""Chance as a selector: the baseline that every other one has to beat."""

from __future__ import annotations

from typing import ClassVar

import torch

from lit_valuation.selectors.base import Need, Pool, Selection, Selector
from lit_valuation.selectors.by_class import select_by_class


class RandomSelector(Selector):
    """Draws samples of each class of the queries at random, without repetition.

    It knows the classes asked for, as every selector does, which makes it a strong baseline (Sarwar et al. 2024).
    """

    needs: ClassVar[frozenset[Need]] = frozenset()

    def select(self, pool: Pool, queries: Pool, budget: int, seed: int = 0) -> Selection:
        """Choose at most ``budget`` samples; see `Selector.select`."""
        place = torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed))
        return select_by_class(pool, queries, budget, lambda mine, asked, share: mine[place[mine].argsort()])
