"""A selector that draws samples at random, the baseline of all others."""

from __future__ import annotations

from typing import ClassVar

import torch

from lit_core.seeds import part_seed
from lit_valuation.selectors.base import Need, Pool, Selection, Selector
from lit_valuation.selectors.by_class import select_by_class


class RandomSelector(Selector):
    """Draws samples of each class of the queries at random, without replacement.

    Like every selector it knows the queries' classes, which makes it a strong baseline (Sarwar et al. 2024).
    """

    needs: ClassVar[frozenset[Need]] = frozenset()

    def select(self, pool: Pool, queries: Pool, budget: int, seed: int | None = None) -> Selection:
        """Choose at most ``budget`` samples; see `Selector.select`."""
        rank = torch.randperm(len(pool), generator=torch.Generator().manual_seed(part_seed(seed)))
        return select_by_class(
            pool, queries, budget, lambda candidates, of_queries, share: candidates[rank[candidates].argsort()]
        )
