"""Selection class by class: order the samples of each class, and take the class's share of the budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from lit_core.errors import UserError
from lit_valuation.selectors.base import Pool, Selection, in_turns, split_budget

#: Maps indices of a class's samples, indices of its queries and its share to the samples, the most wanted first.
Order = Callable[[Tensor, Tensor, int], Tensor]


def select_by_class(
    pool: Pool, queries: Pool, budget: int, order: Order, facts: Mapping[str, float] | None = None
) -> Selection:
    """Take each class's share of the budget from the beginning of the class's order.

    Args:
        pool: The owner's samples.
        queries: The hard cases.
        budget: Most samples to choose.
        order: Orders the samples of a class.
        facts: Values that the selector reports, by name.

    Returns:
        The selection, with weights of one.

    Raises:
        UserError: If the budget is below 1, or no sample of the pool has a class of the queries.
    """
    chosen = {}
    for c, share in split_budget(budget, pool.y, queries.y).items():
        candidates, of_queries = ((y == c).nonzero().squeeze(1) for y in (pool.y, queries.y))
        chosen[c] = order(candidates, of_queries, share)[:share]
    return unweighted(in_turns(chosen, queries.y), facts)


def unweighted(indices: Tensor, facts: Mapping[str, float] | None = None) -> Selection:
    """Return a selection whose weights are all 1."""
    return Selection(indices, torch.ones(len(indices)), dict(facts or {}))


def features_of(pool: Pool, queries: Pool) -> tuple[Tensor, Tensor]:
    """Return the features of pool and queries.

    Raises:
        UserError: If features are missing, or their widths differ.
    """
    return _both(pool.features, queries.features, "features", "encode both with one encoder")


def rows_of(pool: Pool, queries: Pool) -> tuple[Tensor, Tensor]:
    """Return the table rows of pool and queries.

    Raises:
        UserError: If rows are missing, or their numbers of columns differ.
    """
    return _both(pool.x, queries.x, "x", "give the rows of both tables")


def _both(of_pool: Tensor | None, of_queries: Tensor | None, name: str, remedy: str) -> tuple[Tensor, Tensor]:
    if of_pool is None or of_queries is None:
        raise UserError(f"The {'pool' if of_pool is None else 'queries'} came without {name}; {remedy}.")
    if of_pool.ndim != 2 or of_queries.ndim != 2 or of_pool.shape[1] != of_queries.shape[1]:
        raise UserError(
            f"{name} of the pool has the shape {tuple(of_pool.shape)} and of the queries {tuple(of_queries.shape)}, "
            f"but both need rows of one width; {remedy}."
        )
    return of_pool, of_queries
