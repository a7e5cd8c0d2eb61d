"""Streams: which samples an optimizer step trains on is a pure function of the start state and the step.

Rank, world size and worker only say which part of a step is mine, so the whole state of a run's data is the step and
how many samples of each source were consumed. It means the same on any number of devices and workers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, default_collate, get_worker_info

from lit_core.data.order import BLOCK, permuted, sample_block
from lit_core.errors import UserError

IGNORED = -100


class SampleSource(Protocol):
    """What a stream reads from: samples by number. A sample is a flat dict of tensors, arrays, numbers or strings.

    A source may also have ``batch(indices) -> dict``, which returns several samples stacked, if that is faster.
    """

    def __len__(self) -> int:
        """Return the number of samples."""

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        """Return one sample."""


class Stream(IterableDataset[dict[str, Tensor]], ABC):
    """An endless row of micro-batches from named sources.

    A batch stacks what the sources return and adds ``source``, the number of each sample's source in ``names``, and
    ``index``, the sample's running number in that source since training began; both int64 of shape ``(b,)``.

    Step t trains on B samples. Position p of the step belongs to micro-batch a of rank r where
    (a W + r) b <= p < (a W + r + 1) b, so any W and accumulation A = B / (W b) train on the same samples.
    Sample g of a source with n samples is the element g % n of a permutation drawn from the seed, the source's name
    and the epoch g // n; a partial global batch is so completed from the next epoch.

    Args:
        sources: The sources by name, in the order of ``names``.
        global_batch_size: Samples per optimizer step over all devices, B.
        micro_batch_size: Samples per device and forward pass, b.
        rank: Number of this process, from 0 to ``world_size`` - 1.
        world_size: Number of processes that train, W.
        seed: Seed of the order.

    Attributes:
        names: Names of the sources.
        accumulation: Micro-batches per device and optimizer step, A.
        tells_epochs: Whether it is said when a source starts over.

    Raises:
        UserError: If the sizes do not divide, or a source is empty.
    """

    tells_epochs = True

    def __init__(
        self,
        sources: Mapping[str, SampleSource],
        *,
        global_batch_size: int,
        micro_batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
    ) -> None:
        _check_layout(micro_batch_size, rank, world_size)
        if global_batch_size < 1 or global_batch_size % (world_size * micro_batch_size):
            raise UserError(
                f"global_batch_size is {global_batch_size}, but {world_size} × {micro_batch_size} samples (devices × "
                f"micro_batch_size) go through at once; choose a multiple of {world_size * micro_batch_size}."
            )
        if not sources:
            raise UserError("sources is empty; name at least one.")
        self.sources = dict(sources)
        self.names = tuple(self.sources)
        for name, source in self.sources.items():
            if len(source) == 0:
                raise UserError(f"source {name!r} has no samples; prepare more data or leave it out.")
        self.global_batch_size, self.micro_batch_size = global_batch_size, micro_batch_size
        self.rank, self.world_size, self.seed = rank, world_size, seed
        self.accumulation = global_batch_size // (world_size * micro_batch_size)
        self.start_step = 0
        self.start_consumed: dict[str, int] = {}
        self._start_quotas: dict[str, int] | None = None
        self._step: tuple[int, dict[str, int], dict[str, int], Sequence[int]] | None = None  # the step read last

    @property
    @abstractmethod
    def steps_per_epoch(self) -> int:
        """Optimizer steps that Lightning counts as one epoch."""

    @abstractmethod
    def quotas(self, step: int) -> dict[str, int]:
        """Return how many samples of each source the steps before ``step`` take, counted from step 0."""

    def start_at(self, step: int, consumed: Mapping[str, int]) -> None:
        """Set the start state.

        Args:
            step: Optimizer steps that were done.
            consumed: Samples consumed by name; a source not named begins anew, a name that is no source is
                kept as it is.
        """
        self.start_step, self.start_consumed = step, dict(consumed)
        self._forget()

    def consumed(self, step: int) -> dict[str, int]:
        """Return the samples consumed by name once ``step`` optimizer steps of the run, counted from 0, are done."""
        if self._start_quotas is None:
            self._start_quotas = self.quotas(self.start_step)
        first, last = self._start_quotas, self.quotas(step)
        begun = {name: self.start_consumed.get(name, 0) + last[name] - first[name] for name in self.names}
        return self.start_consumed | begun

    def counts(self, step: int) -> dict[str, int]:
        """Return how many samples of each source step ``step``, from 0, trains on."""
        first, last = self.quotas(step), self.quotas(step + 1)
        return {name: last[name] - first[name] for name in self.names}

    def _forget(self) -> None:
        """Drop what was derived from the start state and the quotas."""
        self._start_quotas = self._step = None

    def plan(self, step: int) -> list[tuple[str, int]]:
        """Return source and running sample number of each of the B positions of a step."""
        return self._slots(step, range(self.global_batch_size))

    def sample_index(self, name: str, number: int) -> int:
        """Return which sample of a source its running sample ``number`` is."""
        return sample_block(number // BLOCK, len(self.sources[name]), self.seed, name)[number % BLOCK]

    def micro_batch(self, number: int) -> dict[str, Any]:
        """Read this rank's micro-batch ``number``, counted from the start state."""
        step, part = divmod(number, self.accumulation)
        first = (part * self.world_size + self.rank) * self.micro_batch_size
        slots = self._slots(self.start_step + step, range(first, first + self.micro_batch_size))
        places: dict[str, list[int]] = {}
        for place, (name, _) in enumerate(slots):
            places.setdefault(name, []).append(place)
        parts = {
            name: _stacked(self.sources[name], [self.sample_index(name, slots[place][1]) for place in of_source])
            for name, of_source in places.items()
        }
        batch = _interleaved(parts, places)
        batch["source"] = torch.tensor([self.names.index(name) for name, _ in slots])
        batch["index"] = torch.tensor([running for _, running in slots])
        return batch

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        number, stride = _worker()
        while True:
            yield self.micro_batch(number)
            number += stride

    def __len__(self) -> int:
        return self.steps_per_epoch * self.accumulation

    def _slots(self, step: int, positions: Sequence[int]) -> list[tuple[str, int]]:
        if self._step is None or self._step[0] != step:  # the micro-batches of a step share it
            order: Sequence[int] = range(self.global_batch_size)
            if len(self.names) > 1:  # else all micro-batches would have the sources in one order
                order = permuted(order, self.global_batch_size, self.seed, "", step).tolist()
            self._step = step, self.consumed(step), self.counts(step), order
        _, consumed, counts, order = self._step
        slots = []
        for position in positions:
            slot = order[position]
            for name in self.names:
                if slot < counts[name]:
                    slots.append((name, consumed[name] + slot))
                    break
                slot -= counts[name]
        return slots


class ShardStream(Stream):
    """An endless row of micro-batches from one source.

    Args:
        source: Samples by number, such as a `TokenWindows` or a `ShardSet`.
        name: Name of the source.
        global_batch_size: Samples per optimizer step over all devices.
        micro_batch_size: Samples per device and forward pass.
        rank: Number of this process, from 0 to ``world_size`` - 1.
        world_size: Number of processes that train.
        seed: Seed of the order.
    """

    def __init__(
        self,
        source: SampleSource,
        name: str,
        *,
        global_batch_size: int,
        micro_batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(
            {name: source},
            global_batch_size=global_batch_size,
            micro_batch_size=micro_batch_size,
            rank=rank,
            world_size=world_size,
            seed=seed,
        )

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps until each sample was seen once."""
        return -(-len(self.sources[self.names[0]]) // self.global_batch_size)

    def quotas(self, step: int) -> dict[str, int]:
        """Return the samples that the steps before ``step`` take."""
        return {self.names[0]: step * self.global_batch_size}


class EvalStream(IterableDataset[dict[str, Tensor]]):
    """All samples of a source once, in order; every rank gets the same number of batches.

    A batch stacks what the source returns and adds ``index``, the sample's number. The last batches are filled up with
    rows whose ``index`` is -1 and whose ``labels`` or ``y``, where there are any, are all -100; they count in nothing.

    Args:
        source: Samples by number, such as a `TokenWindows` with ``tail``.
        batch_size: Samples per device and forward pass.
        rank: Number of this process, from 0 to ``world_size`` - 1.
        world_size: Number of processes that evaluate.

    Raises:
        UserError: If the source is empty.
    """

    def __init__(self, source: SampleSource, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        _check_layout(batch_size, rank, world_size)
        if len(source) == 0:
            raise UserError("The source to evaluate on has no samples; prepare more data or leave it out.")
        self.source, self.batch_size, self.rank, self.world_size = source, batch_size, rank, world_size

    def batch(self, number: int) -> dict[str, Tensor]:
        """Read this rank's batch ``number``, from 0."""
        first = (number * self.world_size + self.rank) * self.batch_size
        return default_collate([self._row(index) for index in range(first, first + self.batch_size)])

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        first, stride = _worker()
        for number in range(first, len(self), stride):
            yield self.batch(number)

    def __len__(self) -> int:
        return -(-len(self.source) // (self.batch_size * self.world_size))

    def _row(self, index: int) -> dict[str, Any]:
        if index < len(self.source):
            return {**self.source[index], "index": index}
        row = {**self.source[len(self.source) - 1], "index": -1}
        for key in row.keys() & {"labels", "y"}:
            row[key] = torch.full_like(torch.as_tensor(row[key]), IGNORED)
        return row


def _stacked(source: SampleSource, indices: list[int]) -> dict[str, Any]:
    batch = getattr(source, "batch", None)
    return batch(indices) if batch else default_collate([source[index] for index in indices])


def _interleaved(parts: dict[str, dict[str, Any]], places: dict[str, list[int]]) -> dict[str, Any]:
    """Put the rows of several sources into the places that they have in the batch."""
    (first, batch), *others = parts.items()
    if not others:
        return dict(batch)
    for name, part in others:
        if part.keys() != batch.keys():
            raise UserError(
                f"source {name!r} and source {first!r} give other keys ({', '.join(part)}; {', '.join(batch)}), so no "
                "batch can hold both; set them up alike."
            )
    order = np.argsort([place for of_source in places.values() for place in of_source])
    together: dict[str, Any] = {}
    for key in batch:
        values = [part[key] for part in parts.values()]
        if isinstance(values[0], Tensor):
            # not by [order], which wakes torch's threads for the smallest batch: a wait where the machine is busy
            together[key] = torch.cat(values).index_select(0, torch.from_numpy(order))
        else:  # strings, which are not stacked
            rows = [row for value in values for row in value]
            together[key] = [rows[place] for place in order.tolist()]
    return together


def _worker() -> tuple[int, int]:
    """Return number and count of the data-loading processes. The ranks are never asked for: no group exists there."""
    info = get_worker_info()
    return (info.id, info.num_workers) if info else (0, 1)


def _check_layout(micro_batch_size: int, rank: int, world_size: int) -> None:
    if micro_batch_size < 1:
        raise UserError(f"micro_batch_size is {micro_batch_size}, but must be at least 1; give a larger one.")
    if not 0 <= rank < world_size:
        raise UserError(f"rank is {rank}, but must be from 0 to {world_size - 1}; correct it or world_size.")
