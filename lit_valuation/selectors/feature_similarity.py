"""The owner's samples that look most like the queries to a public encoder."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from lit_core.errors import UserError
from lit_valuation.functional.search import Backend, borda_order, nearest, settle_claims, veto_order
from lit_valuation.selectors.base import Need, Pool, Selection, Selector, in_turns, split_budget
from lit_valuation.selectors.by_class import features_of, unweighted


class FeatureSimilaritySelector(Selector):
    """Lets each query vote for its nearest samples by the features of an encoder (Sarwar et al. 2024).

    Args:
        vote: ``veto`` takes every query's nearest sample, then every query's second nearest, and so on; ``borda`` takes
            the samples with most points, of which a query's nearest gets most.
        top_k: How many of the nearest samples of the whole pool a query looks at before those of other classes are
            dropped, 1 or more; the paper's code takes 10 to 200. None lets it look at all samples it may vote for.
        same_class: Whether a query votes for samples of its own class only; otherwise for those of any query's class.
        backend: ``exact`` searches with matrix products, ``faiss`` with faiss, which is to be installed.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"features"})

    def __init__(
        self,
        vote: Literal["veto", "borda"] = "veto",
        top_k: int | None = None,
        same_class: bool = True,
        backend: Backend = "exact",
    ) -> None:
        if top_k is not None and top_k < 1:
            raise UserError(f"top_k is {top_k}, but must be 1 or more; let each query look at one sample at least.")
        self.vote, self.top_k, self.same_class, self.backend = vote, top_k, same_class, backend

    def select(self, pool: Pool, queries: Pool, budget: int, seed: int = 0) -> Selection:
        """Choose at most ``budget`` samples; see `Selector.select`."""
        shares = split_budget(budget, pool.y, queries.y)
        orders = {c: self._order(pool, queries, c, budget) for c in shares}
        if not self.same_class:
            orders = settle_claims(orders)
        return unweighted(in_turns({c: order[: shares[c]] for c, order in orders.items()}, queries.y))

    def _order(self, pool: Pool, queries: Pool, c: int, budget: int) -> Tensor:
        """Return the samples that the queries of a class vote for, the most wanted first."""
        features, asked = features_of(pool, queries)
        wanted = torch.tensor([c]) if self.same_class else queries.y
        candidates = torch.isin(pool.y, wanted).nonzero().squeeze(1)
        if self.top_k is not None:
            looked_at, k = torch.arange(len(pool)), min(self.top_k, len(pool))
        else:
            looked_at, k = candidates, len(candidates)
            if self.vote == "veto":  # a query is not asked more often than the budget has samples
                k = min(k, budget)
        distances_MK, numbers_MK = nearest(asked[queries.y == c], features[looked_at], k, self.backend)
        numbers_MK = looked_at[numbers_MK]
        allowed_MK = torch.isin(pool.y[numbers_MK], wanted)
        if self.vote == "borda":
            return borda_order(numbers_MK, allowed_MK)
        return veto_order(distances_MK, numbers_MK, allowed_MK)
