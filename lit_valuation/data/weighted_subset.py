"""Training on a weighted subset of a set: each sample once per epoch with its weight, or drawn by it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from lit_core.data import ShardStream, Stream, StreamLoader
from lit_core.errors import UserError
from lit_valuation.batches import as_batch


class LoaderRows:
    """The samples behind a loader, by number, collated as the loader does.

    Args:
        loader: A loader of a map-style dataset, or a `StreamLoader`, whose sources follow each other.

    Raises:
        UserError: If it is neither.
    """

    def __init__(self, loader: Any) -> None:
        stream = loader.stream if isinstance(loader, StreamLoader) else None
        self.collate: Callable[[list[Any]], Any] = default_collate
        if stream is not None:
            self.parts = list(stream.sources.values()) if isinstance(stream, Stream) else [stream.source]
        elif isinstance(loader, DataLoader) and hasattr(loader.dataset, "__len__"):
            self.parts, self.collate = [loader.dataset], loader.collate_fn
        else:
            raise UserError(
                f"Samples are chosen by number, but a {type(loader).__name__} gives none; use a DataLoader over a "
                "dataset with __len__ and __getitem__, or a StreamLoader."
            )

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def __getitem__(self, number: int) -> Any:
        for part in self.parts:
            if number < len(part):
                return part[number]
            number -= len(part)
        raise IndexError(number)

    def read(self, numbers: list[int]) -> Any:
        """Return some samples as one batch."""
        at_once = getattr(self.parts[0], "batch", None) if len(self.parts) == 1 else None
        return at_once(numbers) if at_once is not None else self.collate([self[number] for number in numbers])


class WeightedSubset:
    """A weighted subset as the source of a stream.

    Args:
        rows: All samples.
        numbers: Which of them, int64 of shape ``(k,)``.
        weights: Weight of each, ``(k,)``.
    """

    def __init__(self, rows: LoaderRows, numbers: Tensor, weights: Tensor) -> None:
        self.rows, self.numbers, self.weights = rows, numbers.tolist(), weights

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        return self.batch([index])

    def batch(self, indices: list[int]) -> dict[str, Any]:
        """Return the rows collated, and their weights."""
        return {"rows": self.rows.read([self.numbers[index] for index in indices]), "weight": self.weights[indices]}


class SubsetStream(ShardStream):
    """An endless row of micro-batches from a weighted subset.

    Args:
        subset: The samples and their weights.
        name: Name of the subset; each has an order of its own.
        by_weight: Whether samples are drawn in proportion to their weights, each epoch anew, instead of once each.
        sizes: The arguments of `ShardStream` that lay out a step: batch sizes, rank, world size and seed.
    """

    tells_epochs = False  # many passes are what a subset is for

    def __init__(self, subset: WeightedSubset, name: str, by_weight: bool, **sizes: int) -> None:
        super().__init__(subset, name, **sizes)
        self.by_weight, self.weights = by_weight, subset.weights
        self._drawn: tuple[int, list[int]] = (-1, [])

    def sample_index(self, name: str, number: int) -> int:
        """Return which sample the running sample ``number`` is."""
        place = super().sample_index(name, number)
        if not self.by_weight:
            return place
        epoch = number // len(self.weights)
        if self._drawn[0] != epoch:
            self._drawn = epoch, draw_by_weight(self.weights, self.seed, epoch)
        return self._drawn[1][place]


class SubsetLoader(StreamLoader):
    """Reads a `SubsetStream` as the module takes its batches.

    Args:
        stream: What to read.
        with_weights: Whether batches become mappings with ``weight``, made of pairs ``(x, y)`` where they are that;
            otherwise they are as the samples' own loader collates them.
        keys: Names of inputs and labels in a mapping.
        keywords: Arguments of `StreamLoader`.
    """

    def __init__(self, stream: SubsetStream, with_weights: bool, keys: Sequence[str], **keywords: Any) -> None:
        super().__init__(stream, **keywords)
        self.with_weights, self.keys = with_weights, keys

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        for batch in super().__iter__():
            rows = batch["rows"]
            if not self.with_weights:
                yield rows
            elif isinstance(rows, Mapping):
                yield {**rows, "weight": batch["weight"]}
            else:
                pair = as_batch(rows)
                yield {self.keys[0]: pair.x, self.keys[1]: pair.y, "weight": batch["weight"]}


def draw_by_weight(weights: Tensor, seed: int, epoch: int) -> list[int]:
    """Draw as many samples as there are, each as often as its weight says, rounded up or down at random.

    Args:
        weights: Weight of each sample, 0 or more, ``(k,)``.
        seed: Seed of the draw.
        epoch: Each epoch has a draw of its own.

    Returns:
        Numbers of samples from 0 to k - 1, k of them.
    """
    shares = weights.double().cumsum(0)
    start = torch.rand((), generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch), dtype=torch.float64)
    points = (torch.arange(len(weights)) + start) / len(weights) * shares[-1]
    return torch.searchsorted(shares, points, right=True).clamp(max=len(weights) - 1).tolist()
