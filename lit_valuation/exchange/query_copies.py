"""Samples of an owner that the trainer has already, since they are queries: the owner keeps them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from lit_core.errors import UserError
from lit_valuation.data.copies import CopyFinder
from lit_valuation.encoders import Encoder
from lit_valuation.samples import Samples


@dataclass(frozen=True)
class QueryCopies:
    """An owner's samples that the trainer has, since they are queries.

    Args:
        others: Indices of the other samples, int64.
        equal: Number of samples that are equal to a query.
        near: Number of samples that are nearly equal to one.
    """

    others: Tensor
    equal: int
    near: int

    @property
    def note(self) -> str:
        """What the owner must know; empty if there are no copies."""
        if not self.equal + self.near:
            return ""
        return (
            f"Left out: {self.equal} of your samples are equal to a query and {self.near} nearly. The trainer has "
            "them, so they would not count; they take nothing of your budget and limit."
        )


def find_copies(
    samples: Samples, queries: Samples, near: float, encoder: Encoder | None, features: Tensor | None
) -> QueryCopies:
    """Find the samples that are equal or nearly equal to a query, whatever their label.

    Args:
        samples: The samples that may be shared.
        queries: The queries.
        near: Fraction of the natural distance of the samples within which one counts as a copy.
        encoder: Encoder whose features are compared too; None compares values only.
        features: Features of the samples by that encoder.

    Raises:
        UserError: If all samples are copies.
    """
    finder = CopyFinder(samples, None, near, encoder, features)
    known = finder.prepare(queries)
    is_equal, is_copy = finder.exact(finder.own, known), finder.all(finder.own, known)
    if is_copy.all():
        raise UserError(
            f"All {len(samples)} of your samples of the classes asked for are equal or nearly equal to a query, so "
            "there is nothing to share; lower near if they are different samples."
        )
    return QueryCopies((~is_copy).nonzero().squeeze(1), int(is_equal.sum()), int((is_copy & ~is_equal).sum()))
