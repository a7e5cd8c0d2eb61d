"""Detection of samples that are copies of others, unchanged or slightly changed: of queries, test data, answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property, partial

import torch
from torch import Tensor

from lit_core.errors import UserError
from lit_valuation.data.fingerprints import unlabelled_fingerprints
from lit_valuation.data.labelled_sets import LabelledSet
from lit_valuation.encoders import Encoder, embed
from lit_valuation.encoders.task_features import token_counts
from lit_valuation.functional.near_index import NearIndex, Rows
from lit_valuation.samples import Samples, as_inputs

_BLOCK = 2**22  # numbers in memory at once
_COUNTED = 1024  # numbers that count the tokens of a text
_CASES = 256  # samples whose distances make the natural one

#: Samples in memory, or on disk, of which a block at a time is read.
Given = Samples | LabelledSet


class Comparable:
    """Samples that a `CopyFinder` has prepared for comparisons.

    Args:
        given: The samples.
        spaces: The rows of the samples in each space in which they are compared.
    """

    def __init__(self, given: Given, spaces: Sequence[Rows]) -> None:
        self.given, self.spaces = given, spaces

    def __len__(self) -> int:
        return len(self.given)

    @property
    def samples(self) -> Samples:
        """The samples in memory."""
        return self.given if isinstance(self.given, Samples) else self.given.load()

    @cached_property
    def contents(self) -> tuple[str, ...]:
        """The SHA-256 of each sample's values."""
        return content_fingerprints(self.given)

    @cached_property
    def content_set(self) -> frozenset[str]:
        """The same as a set."""
        return frozenset(self.contents)

    @cached_property
    def indexes(self) -> list[NearIndex]:
        """An index of the rows in each space."""
        return [NearIndex(rows, len(self)) for rows in self.spaces]

    def rows(self, space: int, indices: Tensor | None = None) -> Tensor:
        """Return the rows of some samples in a space, float64; None takes all samples."""
        return self.spaces[space](torch.arange(len(self)) if indices is None else indices)


class CopyFinder:
    """Finds samples that lie much nearer to others than different samples naturally do.

    The natural distance is the median distance of one's own samples from the nearest of them that is not equal. Where
    cases are given it is at most their median distance from the nearest own sample or other case: hard cases may be far
    from all training data, and near to each other.

    Values are compared: images without brightness and contrast, columns of tables in standard deviations of one's own
    samples, texts by their counts of tokens. With features these are compared too; those of an encoder change little
    under shifts, flips and changes of colour that change every pixel. One's own samples may be many: they are indexed,
    and read block by block.

    Attributes:
        own: The own samples, prepared for comparisons.
        distances: The distance below which two samples are copies, by space; empty if only exact copies are found.

    Args:
        own: Samples of one's own, the more the better.
        cases: Further samples of one's own, whose distances are natural too, such as hard cases; None if there are
            none.
        fraction: Fraction of the natural distance within which a sample counts as a copy, from 0 to below 1; 0 finds
            exact copies only.
        encoder: Encoder whose features are compared too; None compares values only.
        features: Features of ``own``, if they are known already; None computes them.
    """

    def __init__(
        self,
        own: Given,
        cases: Samples | None,
        fraction: float,
        encoder: Encoder | None = None,
        features: Tensor | None = None,
    ) -> None:
        self._encoder, self._fraction = encoder, fraction
        has_columns = inputs_of(own, torch.arange(min(1, len(own)))).ndim == 2 and own.target not in ("tags", "text")
        self._scale = _deviations(own) if fraction and has_columns else None
        self.own = self.prepare(own, features)
        known = None if cases is None else self.prepare(cases.take(_few(cases)))
        spaces = range(len(self.own.spaces)) if fraction else ()
        self.distances = [fraction * self._natural_distance(space, known) for space in spaces]

    def prepare(self, samples: Given, features: Tensor | None = None) -> Comparable:
        """Return samples that can be compared.

        Args:
            samples: The samples.
            features: Their features, if they are known already; None computes them.
        """
        spaces: list[Rows] = [partial(self._values, samples)] if self._fraction else []
        if self._encoder is not None and self._fraction and len(samples):
            known = embed(self._encoder, _all_inputs(samples)) if features is None else features
            spaces.append(lambda indices: known[indices].double())
        return Comparable(samples, spaces)

    def exact(self, samples: Comparable, others: Comparable) -> Tensor:
        """Return which samples are exact copies of others, whatever their label; bool of shape ``(n,)``."""
        return torch.tensor([content in others.content_set for content in samples.contents], dtype=torch.bool)

    def all(self, samples: Comparable, others: Comparable) -> Tensor:
        """Return which samples are exact or near copies of others, whatever their label; bool of shape ``(n,)``.

        The larger of both sets is indexed, the other one is held in memory.
        """
        is_copy = self.exact(samples, others)
        if not len(samples) or not len(others):
            return is_copy
        for space, distance in enumerate(self.distances):
            if len(samples) <= len(others):
                found, _ = others.indexes[space].within(samples.rows(space), distance)
            else:
                _, found = samples.indexes[space].within(others.rows(space), distance)
            is_copy[found] = True
        return is_copy

    def _natural_distance(self, space: int, cases: Comparable | None) -> float:
        """Return the natural distance in a space; 0 if all samples are equal."""
        index = self.own.indexes[space]
        found = [index.nearest_other(self.own.rows(space, _few(self.own)))]
        if cases is not None and len(cases):
            rows = cases.rows(space)
            found.append(torch.minimum(index.nearest_other(rows), cases.indexes[space].nearest_other(rows)))
        finite = [distances[distances.isfinite()] for distances in found]
        return min((float(distances.median()) for distances in finite if len(distances)), default=0.0)

    def _values(self, samples: Given, indices: Tensor) -> Tensor:
        """Return rows to compare.

        Images are without brightness and contrast (mean 0, length 1), columns in deviations, texts counts of tokens.
        """
        x = inputs_of(samples, indices)
        if x.dtype == torch.int64:
            return token_counts(x, _COUNTED).double()
        rows = x.flatten(1).double()
        if self._scale is not None:
            return rows / self._scale
        rows -= rows.mean(1, keepdim=True)
        return torch.nn.functional.normalize(rows, dim=1)


def _few(samples: Samples | Comparable) -> Tensor:
    """Return the indices of some of the samples, evenly spaced."""
    count = min(_CASES, len(samples))
    return torch.arange(count) * len(samples) // max(1, count)


def check_near(near: float) -> None:
    """Check the fraction of the natural distance within which a sample counts as a copy.

    Raises:
        UserError: If it is not from 0 to below 1.
    """
    if not 0 <= near < 1:
        raise UserError(f"near is {near}, but must be from 0 to below 1; 0.25 takes a quarter of the natural distance.")


def inputs_of(samples: Given, indices: Tensor) -> Tensor:
    """Return the inputs of some samples as a network takes them."""
    if isinstance(samples, Samples):
        return as_inputs(samples.x[indices])
    return samples.batch(indices.tolist())["x"] if len(indices) else samples.load([]).inputs()


def _all_inputs(samples: Given) -> Tensor:
    return samples.x if isinstance(samples, Samples) else samples.load().x


def _blocks(samples: Given) -> Iterator[Tensor]:
    """Yield all inputs, a block at a time."""
    width = max(1, inputs_of(samples, torch.arange(min(1, len(samples)))).numel())
    for indices in torch.arange(len(samples)).split(max(1, _BLOCK // width)):
        yield inputs_of(samples, indices)


def content_fingerprints(samples: Given) -> tuple[str, ...]:
    """Return the SHA-256 of each sample's values, whatever its label and however its values are stored."""
    return tuple(content for block in _blocks(samples) for content in unlabelled_fingerprints(block))


def _deviations(samples: Given) -> Tensor:
    """Return the standard deviation of each column, float64; 1 where it is 0."""
    first = inputs_of(samples, torch.arange(min(1, len(samples)))).flatten(1).double()
    total, squares = torch.zeros_like(first[0]), torch.zeros_like(first[0])
    for block in _blocks(samples):
        gaps = block.flatten(1).double() - first  # so that a large mean costs no precision
        total, squares = total + gaps.sum(0), squares + gaps.square().sum(0)
    n = len(samples)
    scale = ((squares - total.square() / n).clamp(min=0) / max(1, n - 1)).sqrt()
    return torch.where(scale > 0, scale, torch.ones_like(scale))
