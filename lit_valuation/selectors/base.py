"""What all selectors share: what they look at, what they return, and how a budget is spent."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from lit_core.errors import UserError
from lit_valuation.functional.gradients import LastLayerGradients

Need = Literal["x", "features", "gradients"]


@dataclass(frozen=True)
class Pool:
    """What a selector may look at: an owner's samples, or the queries, with what its `needs` name.

    Args:
        y: Numbers of the classes, int64 of shape ``(n,)``; pool and queries are numbered alike.
        x: Rows of a table, ``(n, columns)``; None where no selector needs them.
        features: Embeddings by a public encoder, ``(n, width)``; None where no selector needs them.
        gradients: Gradients of the last layer at each sample; None where no selector needs them.
    """

    y: Tensor
    x: Tensor | None = None
    features: Tensor | None = None
    gradients: LastLayerGradients | None = None

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True)
class Selection:
    """What was selected, the most wanted first.

    Args:
        indices: Numbers of the selected samples in the pool, int64 of shape ``(k,)``, without repetition. Within a
            class every prefix is the selection at a smaller budget, unless gradient matching dropped a sample that a
            smaller one has; classes take turns in proportion to their queries.
        weights: Weight of each selected sample, 0 or more, of shape ``(k,)``; ones where the selector has none.
        facts: What the selector found out, by name, such as ``relative_residual`` or ``mean_psi``.
    """

    indices: Tensor
    weights: Tensor
    facts: Mapping[str, float] = field(default_factory=dict)


class Selector(ABC):
    """Chooses samples of a pool for the sake of the queries.

    To add a selector, derive from this class, export it from ``lit_valuation.selectors``, and write its YAML in
    ``configs/valuation/selector`` and its test.

    Attributes:
        needs: Which fields of a `Pool`, beside the labels, must be there.
    """

    needs: ClassVar[frozenset[Need]]

    @abstractmethod
    def select(self, pool: Pool, queries: Pool, budget: int, seed: int = 0) -> Selection:
        """Choose at most ``budget`` samples; a class gets its share by `split_budget`.

        Args:
            pool: The owner's samples.
            queries: The hard cases.
            budget: Most samples to choose, 1 or more.
            seed: Seed of what is drawn at random and of ties that nothing else breaks.

        Returns:
            The selection; shorter than the budget where fewer samples are worth it.

        Raises:
            UserError: If the budget is below 1, or no sample of the pool has a class of the queries.
        """


def split_budget(budget: int, pool_y: Tensor, query_y: Tensor) -> dict[int, int]:
    """Divide a budget among the classes of the queries in proportion to their number.

    One sample after the other goes to the class with the most queries per sample, counted as Sainte-Laguë does, so the
    division of a smaller budget is part of that of a larger one. A class gets no more than the pool has of it.

    Args:
        budget: Samples to divide, 1 or more.
        pool_y: Class of each sample of the pool.
        query_y: Class of each query.

    Returns:
        Samples by class, for the classes that get any.

    Raises:
        UserError: If the budget is below 1, or the pool has none of the queries' classes.
    """
    if budget < 1:
        raise UserError(f"budget is {budget}, but must be 1 or more; ask for at least one sample.")
    room = {int(c): int((pool_y == c).sum()) for c in query_y.unique()}
    if not any(room.values()):
        raise UserError("The pool has no sample of the queries' classes, so there is nothing to choose from.")
    turns = [(turn, c) for c, most in room.items() for turn in _turns(most, int((query_y == c).sum()))]
    shares: dict[int, int] = {}
    for _, c in sorted(turns)[:budget]:
        shares[c] = shares.get(c, 0) + 1
    return shares


def in_turns(chosen: Mapping[int, Tensor], query_y: Tensor) -> Tensor:
    """Order selected samples so that each prefix divides among the classes as `split_budget` would.

    Args:
        chosen: Numbers of the selected samples by class, the most wanted first.
        query_y: Class of each query.

    Returns:
        All of them, int64 of shape ``(k,)``.
    """
    turns = [
        (turn, c, index)
        for c, indices in chosen.items()
        for turn, index in zip(
            _turns(len(indices), int((query_y == c).sum())), torch.as_tensor(indices).tolist(), strict=True
        )
    ]
    return torch.tensor([index for _, _, index in sorted(turns)], dtype=torch.int64)


def _turns(samples: int, queries: int) -> list[float]:
    """Return when a class with so many queries gets its first, second, … sample."""
    return [(rank + 0.5) / queries for rank in range(samples)]
