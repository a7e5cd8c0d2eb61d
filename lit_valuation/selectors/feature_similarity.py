"""A selector of samples whose features are nearest to those of the queries."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from lit_core.errors import check_at_least
from lit_valuation.functional.search import Backend, borda_order, nearest, settle_claims, veto_order
from lit_valuation.selectors.base import Need, Pool, Selection, Selector, in_turns, split_budget
from lit_valuation.selectors.by_class import features_of, unweighted


class FeatureSimilaritySelector(Selector):
    """Lets each query vote for its nearest samples by the features of an encoder (Sarwar et al. 2024).

    Args:
        vote: ``veto`` takes the nearest sample of every query, then the second nearest of every query, and so on;
            ``borda`` takes the samples with the most points, where a query gives most points to its nearest sample.
        top_k: Number of nearest samples of the whole pool that a query considers before samples of other classes are
            removed, 1 or more; the paper's code takes 10 to 200. None considers all samples that the query may vote
            for.
        same_class: Whether a query votes only for samples of its own class; otherwise for those of any query's class.
        backend: ``exact`` searches with matrix products, ``faiss`` with the library faiss, if it is installed.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"features"})

    def __init__(
        self,
        vote: Literal["veto", "borda"] = "veto",
        top_k: int | None = None,
        same_class: bool = True,
        backend: Backend = "exact",
    ) -> None:
        check_at_least(1, top_k=top_k)
        self.vote, self.top_k, self.same_class, self.backend = vote, top_k, same_class, backend

    def select(self, pool: Pool, queries: Pool, budget: int, seed: int | None = None) -> Selection:
        """Choose at most ``budget`` samples; see `Selector.select`."""
        shares = split_budget(budget, pool.y, queries.y)
        orders = {c: self._order(pool, queries, c, budget) for c in shares}
        if not self.same_class:
            orders = settle_claims(orders)
        return unweighted(in_turns({c: order[: shares[c]] for c, order in orders.items()}, queries.y))

    def _order(self, pool: Pool, queries: Pool, c: int, budget: int) -> Tensor:
        """Return the samples that the queries of a class vote for, the most wanted first."""
        features, query_features = features_of(pool, queries)
        wanted = torch.tensor([c]) if self.same_class else queries.y
        candidates = torch.isin(pool.y, wanted).nonzero().squeeze(1)
        if self.top_k is not None:
            considered, k = torch.arange(len(pool)), min(self.top_k, len(pool))
        else:
            considered, k = candidates, len(candidates)
            if self.vote == "veto":  # no query names more samples than the budget has
                k = min(k, budget)
        distances_MK, indices_MK = nearest(query_features[queries.y == c], features[considered], k, self.backend)
        indices_MK = considered[indices_MK]
        allowed_MK = torch.isin(pool.y[indices_MK], wanted)
        if self.vote == "borda":
            return borda_order(indices_MK, allowed_MK)
        return veto_order(distances_MK, indices_MK, allowed_MK)
