"""What most selectors do: order the pool's samples class by class, and take each class's share."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from lit_core.errors import UserError
from lit_valuation.selectors.base import Pool, Selection, in_turns, split_budget

#: From the numbers of a class's samples, those of its queries and its share to the samples, the most wanted first.
Order = Callable[[Tensor, Tensor, int], Tensor]


def select_by_class(
    pool: Pool, queries: Pool, budget: int, order: Order, facts: Mapping[str, float] | None = None
) -> Selection:
    """Give each class its share of the budget, and take that many of the samples in its order.

    Args:
        pool: The owner's samples.
        queries: The hard cases.
        budget: Most samples to choose.
        order: Orders a class's samples.
        facts: What the selector found out, by name.

    Returns:
        The selection, with weights of one.

    Raises:
        UserError: If the budget is below 1, or no sample of the pool has a class of the queries.
    """
    chosen = {}
    for c, share in split_budget(budget, pool.y, queries.y).items():
        mine, asked = ((y == c).nonzero().squeeze(1) for y in (pool.y, queries.y))
        chosen[c] = order(mine, asked, share)[:share]
    return unweighted(in_turns(chosen, queries.y), facts)


def unweighted(indices: Tensor, facts: Mapping[str, float] | None = None) -> Selection:
    """Return a selection whose samples weigh alike."""
    return Selection(indices, torch.ones(len(indices)), dict(facts or {}))


def features_of(pool: Pool, queries: Pool) -> tuple[Tensor, Tensor]:
    """Return the features of both.

    Raises:
        UserError: If one has none, or their widths differ.
    """
    return _both(pool.features, queries.features, "features", "encode both with one encoder")


def rows_of(pool: Pool, queries: Pool) -> tuple[Tensor, Tensor]:
    """Return the rows of both.

    Raises:
        UserError: If one has none, or their numbers of columns differ.
    """
    return _both(pool.x, queries.x, "x", "give the rows of both tables")


def _both(mine: Tensor | None, asked: Tensor | None, name: str, remedy: str) -> tuple[Tensor, Tensor]:
    if mine is None or asked is None:
        raise UserError(f"The {'pool' if mine is None else 'queries'} came without {name}; {remedy}.")
    if mine.ndim != 2 or asked.ndim != 2 or mine.shape[1] != asked.shape[1]:
        raise UserError(
            f"{name} of the pool has the shape {tuple(mine.shape)} and of the queries {tuple(asked.shape)}, but both "
            f"need rows of one width; {remedy}."
        )
    return mine, asked
