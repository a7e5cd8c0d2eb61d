"""Streams of a weighted subset: each sample once per epoch with its weight, or drawn in proportion to the weights."""

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
    """The samples of a loader, read by index and collated as the loader does.

    Args:
        loader: A DataLoader over a map-style dataset, or a `StreamLoader`, whose sources are concatenated.

    Raises:
        UserError: If the loader is neither.
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
                f"Samples are chosen by index, but a {type(loader).__name__} has none; use a DataLoader over a "
                "dataset with __len__ and __getitem__, or a StreamLoader."
            )

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def __getitem__(self, index: int) -> Any:
        for part in self.parts:
            if index < len(part):
                return part[index]
            index -= len(part)
        raise IndexError(index)

    def read(self, indices: list[int]) -> Any:
        """Return the samples at ``indices`` as one batch."""
        read_batch = getattr(self.parts[0], "batch", None) if len(self.parts) == 1 else None
        return read_batch(indices) if read_batch is not None else self.collate([self[index] for index in indices])


class WeightedSubset:
    """A weighted subset as the source of a stream.

    Args:
        rows: All samples.
        numbers: Indices of the chosen samples, int64 of shape ``(k,)``.
        weights: Weight of each chosen sample, ``(k,)``.
    """

    def __init__(self, rows: LoaderRows, numbers: Tensor, weights: Tensor) -> None:
        self.rows, self.numbers, self.weights = rows, numbers.tolist(), weights

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        return self.batch([index])

    def batch(self, indices: list[int]) -> dict[str, Any]:
        """Return the collated samples as ``rows``, and their ``weight``."""
        return {"rows": self.rows.read([self.numbers[index] for index in indices]), "weight": self.weights[indices]}


class SubsetStream(ShardStream):
    """An endless stream of micro-batches from a weighted subset.

    Args:
        subset: The samples and their weights.
        name: Name of the subset, on which the order of its samples depends.
        by_weight: Whether each epoch draws samples in proportion to their weights, instead of each sample once.
        sizes: The arguments of `ShardStream` that describe a step: batch sizes, rank, world size and seed.
    """

    tells_epochs = False  # many passes over a subset are intended

    def __init__(self, subset: WeightedSubset, name: str, by_weight: bool, **sizes: int) -> None:
        super().__init__(subset, name, **sizes)
        self.by_weight, self.weights = by_weight, subset.weights
        self._drawn: tuple[int, list[int]] = (-1, [])

    def sample_index(self, name: str, running: int) -> int:
        """Return the index in the subset of the ``running``-th sample that the stream reads."""
        position = super().sample_index(name, running)
        if not self.by_weight:
            return position
        epoch = running // len(self.weights)
        if self._drawn[0] != epoch:
            self._drawn = epoch, draw_by_weight(self.weights, self.seed, epoch)
        return self._drawn[1][position]


class SubsetLoader(StreamLoader):
    """Reads a `SubsetStream` in the form of batch that the module expects.

    Args:
        stream: The stream.
        with_weights: Whether batches become mappings with ``weight``, also where the loader of the samples yields
            pairs ``(x, y)``; otherwise batches are as that loader collates them.
        keys: Names of inputs and labels in a mapping.
        keywords: Arguments of `StreamLoader`.
    """

    def __init__(self, stream: SubsetStream, with_weights: bool, keys: Sequence[str], **keywords: Any) -> None:
        super().__init__(stream, **keywords)
        self.with_weights, self.keys = with_weights, keys

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        for batch in super().__iter__():
            rows = batch["rows"]
            if isinstance(rows, Mapping) and rows.get("weight") is not None:
                raise UserError(
                    "The training data have weights of their samples, and GradientMatching chooses others; leave out "
                    "`mass` and `weights` of the data, or the callback."
                )
            if not self.with_weights:
                yield rows
            elif isinstance(rows, Mapping):
                yield {**rows, "weight": batch["weight"]}
            else:
                pair = as_batch(rows)
                yield {self.keys[0]: pair.x, self.keys[1]: pair.y, "weight": batch["weight"]}


def draw_by_weight(weights: Tensor, seed: int, epoch: int) -> list[int]:
    """Draw k of k samples, each as often as its share of the weight times k, rounded up or down at random.

    Args:
        weights: Weight of each sample, 0 or more, ``(k,)``.
        seed: Seed of the draw.
        epoch: Index of the epoch; each has a draw of its own.

    Returns:
        k indices from 0 to k - 1.
    """
    cumulative = weights.double().cumsum(0)
    start = torch.rand((), generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch), dtype=torch.float64)
    points = (torch.arange(len(weights)) + start) / len(weights) * cumulative[-1]
    return torch.searchsorted(cumulative, points, right=True).clamp(max=len(weights) - 1).tolist()
