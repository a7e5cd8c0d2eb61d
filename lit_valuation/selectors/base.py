"""The base class of selectors: their input, their output, and the division of a budget among classes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from lit_core.errors import UserError, check_at_least
from lit_valuation.functional.gradients import SampleGradients
from lit_valuation.samples import Target

Need = Literal["x", "features", "gradients"]


@dataclass(frozen=True)
class Pool:
    """Input of a selector: an owner's samples or the queries, with the fields that the selector's `needs` name.

    Args:
        y: Class indices, int64 of shape ``(n,)``, the same for pool and queries; zeros where targets are not classes.
        x: Rows of a table, ``(n, columns)``; None if not needed.
        features: Features by a public encoder, ``(n, width)``; None if not needed.
        gradients: Last-layer gradient of each sample; None if not needed.
        values: Labels or values of each sample, ``(n, k)``, or tags or tokens of each text, int64 of shape
            ``(n, length)``; None where targets are classes.
        sums: Of queries that stand for sums of gradients: which sum each belongs to, int64 of shape ``(n,)``; None for
            queries that stand for themselves.
        target: Kind of the targets.
    """

    y: Tensor
    x: Tensor | None = None
    features: Tensor | None = None
    gradients: SampleGradients | None = None
    values: Tensor | None = None
    sums: Tensor | None = None
    target: Target = "class"

    def __len__(self) -> int:
        return len(self.y)

    def take(self, indices: Tensor) -> Pool:
        """Return the samples at ``indices``, in that order."""
        x, features, gradients, values = self.x, self.features, self.gradients, self.values
        return Pool(
            self.y[indices],
            None if x is None else x[indices],
            None if features is None else features[indices],
            None if gradients is None else gradients.take(indices),
            None if values is None else values[indices],
            None if self.sums is None else self.sums[indices],
            self.target,
        )


@dataclass(frozen=True)
class Selection:
    """Output of a selector: the selected samples, the most wanted first.

    Args:
        indices: Indices of the selected samples in the pool, int64 of shape ``(k,)``, without repetition. Classes take
            turns in proportion to their number of queries. Within a class, every prefix is the selection for a smaller
            budget, unless gradient matching removed a sample from the active set.
        weights: Weight of each selected sample, 0 or more, of shape ``(k,)``; ones if the selector has no weights.
        facts: Values that the selector reports, by name, such as ``relative_residual`` or ``mean_psi``.
    """

    indices: Tensor
    weights: Tensor
    facts: Mapping[str, float] = field(default_factory=dict)


class Selector(ABC):
    """Chooses the samples of a pool that help most with the queries.

    To add a selector, derive from this class, export it from ``lit_valuation.selectors``, and write its YAML in
    ``configs/valuation/selector`` and its test.

    Attributes:
        needs: Fields of a `Pool`, in addition to the labels, that the selector uses. The other fields of its pools may
            be None.

    Raises:
        TypeError: If a class defines `select`, but its ``needs`` is missing or is not a set of such fields.
    """

    needs: ClassVar[frozenset[Need]]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        needs = getattr(cls, "needs", None)
        known = isinstance(needs, (set, frozenset)) and needs <= set(get_args(Need))
        if cls.select is not Selector.select and not known:
            raise TypeError(
                f"{cls.__name__}.needs is {needs!r}, but must be a set of names among {', '.join(get_args(Need))}. Set "
                'it to frozenset({"features"}), for example, or to frozenset() if the labels are enough.'
            )

    @abstractmethod
    def select(self, pool: Pool, queries: Pool, budget: int, seed: int | None = None) -> Selection:
        """Choose at most ``budget`` samples; `split_budget` gives each class its share.

        Args:
            pool: The owner's samples.
            queries: The hard cases.
            budget: Most samples to choose, 1 or more.
            seed: Seed of random choices and of ties that nothing else breaks; None takes that of the run.

        Returns:
            The selection; it is shorter than the budget if fewer samples help.

        Raises:
            UserError: If the budget is below 1, or no sample of the pool has a class of the queries.
        """


def split_budget(budget: int, pool_y: Tensor, query_y: Tensor) -> dict[int, int]:
    """Divide a budget among classes in proportion to their number of queries, by the Sainte-Laguë method.

    A larger budget never gives a class fewer samples than a smaller one. A class gets at most the samples that the pool
    has of it.

    Args:
        budget: Number of samples to divide, 1 or more.
        pool_y: Class index of each sample of the pool.
        query_y: Class index of each query.

    Returns:
        Number of samples by class index, without classes that get none.

    Raises:
        UserError: If the budget is below 1, or the pool has no sample of the queries' classes.
    """
    check_at_least(1, budget=budget)
    available = {int(c): int((pool_y == c).sum()) for c in query_y.unique()}
    if not any(available.values()):
        raise UserError("The pool has no sample of the queries' classes, so there is nothing to choose from.")
    turns = [(turn, c) for c, most in available.items() for turn in _turns(most, int((query_y == c).sum()))]
    shares: dict[int, int] = {}
    for _, c in sorted(turns)[:budget]:
        shares[c] = shares.get(c, 0) + 1
    return shares


def in_turns(chosen: Mapping[int, Tensor], query_y: Tensor) -> Tensor:
    """Merge the orders of the classes, so that each prefix has the class shares of `split_budget`.

    Args:
        chosen: Indices of the selected samples by class, the most wanted first.
        query_y: Class index of each query.

    Returns:
        All indices, int64 of shape ``(k,)``.
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
    """Return the Sainte-Laguë quotients at which a class gets its first, second, … sample; lower comes first."""
    return [(rank + 0.5) / queries for rank in range(samples)]
