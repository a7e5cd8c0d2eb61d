"""Streams of training and evaluation batches.

The samples of an optimizer step are a pure function of the start state and the step. Rank, world size and worker only
select a part of them. So the state of a run's data is the step and the number of samples consumed from each source,
and it is valid for any number of devices and workers.
"""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, default_collate, get_worker_info

from lit_core.data.order import BLOCK, ORDER, ordered, sample_block
from lit_core.errors import UserError, check_at_least, reason_of
from lit_core.seeds import part_seed

IGNORED = -100


class SampleSource(Protocol):
    """Samples by index, which a stream reads.

    A sample is a mapping, a tuple, a dataclass instance or a tensor, as torch's DataLoader stacks them, or nested. A
    source may also have ``batch(indices) -> dict``, which returns several samples stacked, if that is faster and they
    are flat dicts of tensors, arrays, numbers or strings; ``content``, a text that differs for other data; and
    ``length``, the tokens of each sample. By the last two a run that branches from another one knows where it stands
    in a source.
    """

    def __len__(self) -> int:
        """Return the number of samples."""

    def __getitem__(self, index: int, /) -> Any:
        """Return one sample."""


class Stream(IterableDataset[Any], ABC):
    """Endless micro-batches from named sources.

    With B samples per optimizer step, W ranks, b samples per micro-batch and A = B / (W b) micro-batches per rank and
    step, a rank reads its micro-batches in these steps:

    1. The index of the micro-batch gives the optimizer step t and the index a of the micro-batch in it, from 0 to
       A - 1.
    2. `quotas` tells how many of the B samples each source gives to step t, and how many it gave to the steps before.
    3. With several sources, a permutation of the B positions, drawn from the seed and t, mixes them.
    4. Rank r takes the positions p with (a W + r) b <= p < (a W + r + 1) b. So any W and A train on the same samples.
    5. A position becomes a running number g: the samples of its source that came before it, since training began. Of a
       source with n samples, it is element g % n of a permutation drawn from the seed, the source's name and the epoch
       g // n. So each sample occurs once per epoch, and the last global batch of an epoch is completed from the next.
    6. The samples are read, one ``batch`` per source where it has this method, and put into the order of their
       positions.

    A batch has the form of the samples, stacked. A mapping also has ``source``, the index of each sample's source in
    ``names``, and ``index``, its running number g; both int64 of shape ``(b,)``.

    Args:
        sources: The sources by name, in the order of ``names``.
        global_batch_size: Samples per optimizer step over all devices, B.
        micro_batch_size: Samples per device and forward pass, b.
        rank: Rank of this process, from 0 to ``world_size`` - 1.
        world_size: Number of processes that train, W.
        seed: Seed of the order; None takes that of the run.

    Attributes:
        names: Names of the sources.
        accumulation: Micro-batches per device and optimizer step, A.
        order: Version of the permutations; `ResumeStream` sets that of the checkpoint.
        begun: Samples by name that counted as consumed when the run began; `ResumeStream` sets them.
        earlier_tokens: Tokens by name that earlier runs read, where known; `ResumeStream` sets them.
        tells_epochs: Whether the loader logs that a source starts a new epoch.
        names_data: Whether the name of a source stands for its data, so that a branch refuses others by that name.

    Raises:
        UserError: If the sizes do not divide, or a source is empty.
    """

    tells_epochs = True
    names_data = True

    def __init__(
        self,
        sources: Mapping[str, SampleSource],
        *,
        global_batch_size: int,
        micro_batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        seed: int | None = None,
    ) -> None:
        global_batch_size, micro_batch_size, rank, world_size = map(
            operator.index, (global_batch_size, micro_batch_size, rank, world_size)
        )
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
        self.rank, self.world_size, self.seed = rank, world_size, part_seed(seed)
        self.order = ORDER
        self.begun: dict[str, int] = {}
        self.earlier_tokens: dict[str, int] = {}
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
            consumed: Samples consumed by name. A source without a name here starts at 0; a name without a source is
                kept unchanged.
        """
        self.start_step = operator.index(step)
        self.start_consumed = {name: operator.index(count) for name, count in consumed.items()}
        self._clear_cache()

    def consumed(self, step: int) -> dict[str, int]:
        """Return the samples consumed by name after the first ``step`` optimizer steps of the run."""
        if self._start_quotas is None:
            self._start_quotas = self.quotas(self.start_step)
        first, last = self._start_quotas, self.quotas(step)
        begun = {name: self.start_consumed.get(name, 0) + last[name] - first[name] for name in self.names}
        return self.start_consumed | begun

    def counts(self, step: int) -> dict[str, int]:
        """Return the number of samples of each source in optimizer step ``step``, an index from 0."""
        first, last = self.quotas(step), self.quotas(step + 1)
        return {name: last[name] - first[name] for name in self.names}

    def _clear_cache(self) -> None:
        """Clear what is cached of the start state and the quotas."""
        self._start_quotas = self._step = None

    def plan(self, step: int) -> list[tuple[str, int]]:
        """Return the source and the running number of the sample at each of the B positions of a step."""
        return self._slots(step, range(self.global_batch_size))

    def sample_index(self, name: str, running: int) -> int:
        """Return the index in its source of the sample with a running number; see step 5 of the class."""
        size = len(self.sources[name])
        return sample_block(running // BLOCK, size, self.seed, name, self.order)[running % BLOCK]

    def micro_batch(self, index: int) -> Any:
        """Read a micro-batch of this rank.

        Args:
            index: Index of the micro-batch, from 0 at the start state.

        Returns:
            The batch, as the class describes it.
        """
        step, part = divmod(operator.index(index), self.accumulation)
        first = (part * self.world_size + self.rank) * self.micro_batch_size
        slots = self._slots(self.start_step + step, range(first, first + self.micro_batch_size))
        rows: dict[str, list[int]] = {}  # of the batch, by source
        for row, (name, _) in enumerate(slots):
            rows.setdefault(name, []).append(row)
        indices = {name: [self.sample_index(name, slots[row][1]) for row in rows[name]] for name in rows}
        if any(hasattr(self.sources[name], "batch") for name in rows):
            parts = {name: _stacked(self.sources[name], indices[name], name) for name in rows}
            batch = _interleaved(parts, rows)
        else:
            samples = {
                row: self.sources[name][at] for name in rows for row, at in zip(rows[name], indices[name], strict=True)
            }
            _check_forms({name: samples[rows[name][0]] for name in rows})
            batch = stacked_samples([samples[row] for row in range(len(slots))], ", ".join(map(repr, rows)))
        if not isinstance(batch, dict):
            return batch
        batch["source"] = torch.tensor([self.names.index(name) for name, _ in slots])
        batch["index"] = torch.tensor([running for _, running in slots])
        return batch

    def __iter__(self) -> Iterator[Any]:
        index, stride = _worker()
        while True:
            yield self.micro_batch(index)
            index += stride

    def __len__(self) -> int:
        return self.steps_per_epoch * self.accumulation

    def _slots(self, step: int, positions: Sequence[int]) -> list[tuple[str, int]]:
        if self._step is None or self._step[0] != step:  # the micro-batches of a step share it
            order: Sequence[int] = range(self.global_batch_size)
            if len(self.names) > 1:  # otherwise each micro-batch would hold one source after the other
                order = ordered(order, self.global_batch_size, self.seed, "", step, self.order).tolist()
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
    """Endless micro-batches from one source; see `Stream` for the steps.

    A run that branches from another one may give the source other data, which it then reads from the start.

    Args:
        source: Samples by index, such as a `TokenWindows` or a `ShardSet`.
        name: Name of the source.
        global_batch_size: Samples per optimizer step over all devices.
        micro_batch_size: Samples per device and forward pass.
        rank: Rank of this process, from 0 to ``world_size`` - 1.
        world_size: Number of processes that train.
        seed: Seed of the order; None takes that of the run.
    """

    names_data = False

    def __init__(
        self,
        source: SampleSource,
        name: str,
        *,
        global_batch_size: int,
        micro_batch_size: int,
        rank: int = 0,
        world_size: int = 1,
        seed: int | None = None,
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
        """Optimizer steps until each sample has been read at least once."""
        return -(-len(self.sources[self.names[0]]) // self.global_batch_size)

    def quotas(self, step: int) -> dict[str, int]:
        """Return the number of samples in the steps before ``step``."""
        return {self.names[0]: operator.index(step) * self.global_batch_size}


class EvalStream(IterableDataset[Any]):
    """All samples of a source once, in order; every rank gets the same number of batches.

    1. Global batch i holds the samples i W b to (i + 1) W b - 1, for W ranks and b samples per batch.
    2. Rank r reads the r-th part of b samples of each global batch.
    3. Positions beyond the end of the source are padded with its last sample, whose ``index`` is set to -1 and whose
       ``labels`` or ``y``, where there are any, to -100; metrics leave these rows out. Samples that are not mappings
       can't be marked, so such a batch has fewer rows; a rank without any gets the last sample once more.

    A batch has the form of the samples, stacked. A mapping also has ``index``, the index of each sample in the source.

    Args:
        source: Samples by index, such as a `TokenWindows` with ``tail``.
        batch_size: Samples per device and forward pass.
        rank: Rank of this process, from 0 to ``world_size`` - 1.
        world_size: Number of processes that evaluate.

    Raises:
        UserError: If the source is empty.
    """

    def __init__(self, source: SampleSource, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        _check_layout(batch_size, rank, world_size)
        if len(source) == 0:
            raise UserError("The source to evaluate on has no samples; prepare more data or leave it out.")
        self.source, self.batch_size, self.rank, self.world_size = source, batch_size, rank, world_size

    def batch(self, index: int) -> Any:
        """Return this rank's batch with an index, from 0; each tensor of a mapping has ``batch_size`` rows."""
        first = (index * self.world_size + self.rank) * self.batch_size
        rows = [self._row(first)]
        padded = isinstance(rows[0], Mapping)
        last = first + self.batch_size if padded else min(first + self.batch_size, len(self.source))
        return stacked_samples(rows + [self._row(position) for position in range(first + 1, last)], "to evaluate on")

    def __iter__(self) -> Iterator[Any]:
        first, stride = _worker()
        for index in range(first, len(self), stride):
            yield self.batch(index)

    def __len__(self) -> int:
        return -(-len(self.source) // (self.batch_size * self.world_size))

    def _row(self, index: int) -> Any:
        sample = self.source[min(index, len(self.source) - 1)]
        if not isinstance(sample, Mapping):
            return sample
        row = {**sample, "index": index if index < len(self.source) else -1}
        for key in row.keys() & {"labels", "y"} if row["index"] < 0 else ():
            row[key] = torch.full_like(torch.as_tensor(row[key]), IGNORED)
        return row


def stacked_samples(samples: Sequence[Any], source: str) -> Any:
    """Return samples as one batch of their form; as torch's DataLoader does, and dataclass instances too.

    Args:
        samples: The samples, 1 or more.
        source: Name of their source, for the message.

    Raises:
        UserError: If they cannot be stacked.
    """
    try:
        return _stack(samples)
    except (TypeError, RuntimeError, ValueError) as error:
        reason = reason_of(error)
        raise UserError(
            f"The samples of the source {source} cannot be stacked into a batch ({reason}); let it return tensors of "
            "equal shapes, arrays, numbers or strings, alone or in mappings, tuples and dataclasses."
        ) from error


def _stack(samples: Sequence[Any]) -> Any:
    first = samples[0]
    if is_dataclass(first) and not isinstance(first, type):
        names = [field.name for field in fields(first) if field.init]
        return type(first)(**{name: _stack([getattr(sample, name) for sample in samples]) for name in names})
    if isinstance(first, Mapping):
        return {key: _stack([sample[key] for sample in samples]) for key in first}
    if isinstance(first, tuple | list):
        columns = [_stack(column) for column in zip(*samples, strict=True)]
        return type(first)(*columns) if hasattr(first, "_fields") else columns
    return default_collate(list(samples))


def _check_forms(samples: Mapping[str, Any]) -> None:
    """Refuse sources whose samples, one of each, have different keys, lengths or types."""
    (first, sample), *others = samples.items()
    for name, other in others:
        if isinstance(sample, Mapping) and isinstance(other, Mapping):
            if sample.keys() != other.keys():
                raise _different_keys(name, other, first, sample)
        elif type(sample) is not type(other) or (isinstance(sample, tuple | list) and len(sample) != len(other)):
            raise UserError(
                f"source {name!r} returns a {type(other).__name__} and source {first!r} a {type(sample).__name__} of "
                "another form, so no batch can hold both; let both return the same."
            )


def _different_keys(name: str, part: Mapping[str, Any], first: str, batch: Mapping[str, Any]) -> UserError:
    return UserError(
        f"source {name!r} and source {first!r} give other keys ({', '.join(part)}; {', '.join(batch)}), so no "
        "batch can hold both; let both return the same keys."
    )


def _stacked(source: SampleSource, indices: list[int], name: str) -> dict[str, Any]:
    batch = getattr(source, "batch", None)
    return batch(indices) if batch else stacked_samples([source[index] for index in indices], repr(name))


def _interleaved(parts: dict[str, dict[str, Any]], rows: dict[str, list[int]]) -> dict[str, Any]:
    """Merge the rows of several sources into one batch, in the given rows of the batch."""
    (first, batch), *others = parts.items()
    if not others:
        return dict(batch)
    for name, part in others:
        if part.keys() != batch.keys():
            raise _different_keys(name, part, first, batch)
    order = np.argsort([row for rows_of_source in rows.values() for row in rows_of_source])
    merged: dict[str, Any] = {}
    for key in batch:
        values = [part[key] for part in parts.values()]
        if isinstance(values[0], Tensor):
            # indexing by [order] starts torch's threads even for the smallest batch, which is slow on a busy machine
            merged[key] = torch.cat(values).index_select(0, torch.from_numpy(order))
        else:  # strings, which are not stacked
            items = [item for value in values for item in value]
            merged[key] = [items[i] for i in order.tolist()]
    return merged


def _worker() -> tuple[int, int]:
    """Return the index of this data-loading process and their number; it has no process group to ask for ranks."""
    info = get_worker_info()
    return (info.id, info.num_workers) if info else (0, 1)


def _check_layout(micro_batch_size: int, rank: int, world_size: int) -> None:
    check_at_least(1, micro_batch_size=micro_batch_size)
    if not 0 <= rank < world_size:
        raise UserError(f"rank is {rank}, but must be from 0 to {world_size - 1}; correct it or world_size.")
