"""`StreamLoader`, the DataLoader that reads a stream in this process or in workers."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from lit_core.data.stream import EvalStream, Stream
from lit_core.errors import RunFailure, UserError
from lit_core.files.paths import naming
from lit_core.screen import logger

log = logger(__name__)

_ALIGNED = 16  # bytes; no type of torch has more
_SMALL = 1 << 20  # bytes; a smaller batch is sent faster through a pipe than through shared memory


class StreamLoader(DataLoader):
    """Reads a stream in this process or in worker processes.

    The position is read at the first batch, not when an iterator is made, since Lightning makes iterators before it
    restores a checkpoint. A training stream is endless, and a second iterator continues from the run's position. The
    length is that of one Lightning epoch, in micro-batches, also after a resume.

    Args:
        stream: What to read.
        num_workers: Processes that read ahead; 0 reads in this one. The batches are the same for any number.
        pin_memory: Whether to put batches into page-locked memory, for faster copies to a GPU.
        prefetch_factor: Micro-batches that each process reads ahead; None is torch's default, 2.
        multiprocessing_context: ``fork``, ``spawn`` or ``forkserver``; None is the platform's default.
        sampler: Always None; Lightning passes it when it rebuilds the loader for prediction.
        batch_sampler: Always None, as `sampler`.
        dataset: Not used; Lightning passes it when it rebuilds a loader that was given to ``predict``.

    Attributes:
        stream: The stream.
        position: Returns the optimizer steps done and the samples consumed by name; `ResumeStream` sets it. If None, an
            iterator continues after the last complete step that was read.
    """

    def __init__(
        self,
        stream: Stream | EvalStream,
        num_workers: int = 0,
        *,
        pin_memory: bool = False,
        prefetch_factor: int | None = None,
        multiprocessing_context: str | None = None,
        sampler: None = None,
        batch_sampler: None = None,
        dataset: Any = None,
    ) -> None:
        # Lightning warns of any IterableDataset with a length, since a careless one repeats samples in each worker
        warnings.filterwarnings("ignore", message=".*`IterableDataset` has `__len__` defined.*")
        super().__init__(
            _WorkerStream(stream),
            batch_size=None,
            num_workers=num_workers,
            pin_memory=pin_memory,
            prefetch_factor=prefetch_factor,
            multiprocessing_context=multiprocessing_context if num_workers else None,
            # otherwise each iterator would draw from torch's global generator, and validations would change training
            generator=torch.Generator(),
        )
        self.stream = stream
        self.position: Callable[[], tuple[int, Mapping[str, int]]] | None = None
        self._read = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # a generator has what torch's iterators have
        stream = self.stream
        if isinstance(stream, Stream):
            step = stream.start_step + self._read // stream.accumulation
            stream.start_at(*(self.position() if self.position else (step, stream.consumed(step))))
            self._read = 0
        with naming("/dev/shm"):  # where the locks of the processes lie
            batches = super().__iter__()
        try:
            for batch in batches:
                if isinstance(batch, _WorkerError):
                    raise batch.kind(batch.text)
                if isinstance(batch, _Packed):
                    batch = batch.unpacked()
                if isinstance(stream, Stream):
                    if stream.tells_epochs and stream.rank == 0 and self._read % stream.accumulation == 0:
                        _tell_epochs(stream, stream.start_step + self._read // stream.accumulation)
                    self._read += 1
                yield batch
        finally:
            _end_processes(batches)

    def __len__(self) -> int:
        return len(self.stream)

    def state_dict(self) -> dict[str, Any]:
        """Return an empty dict: `ResumeStream` saves the position, but Lightning warns if this method is missing."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Do nothing; see `state_dict`."""


def _end_processes(batches: Any) -> None:
    """End the data-loading processes now.

    torch does so when its iterator is deleted. That of an error lies in its traceback, and is left to the garbage
    collector, which ends the threads first that would tell the processes to end: each is then waited for five seconds.
    """
    if hasattr(batches, "_shutdown_workers"):  # not where this process reads
        batches._shutdown_workers()


def _tell_epochs(stream: Stream, step: int) -> None:
    """Log the start of each source's second epoch, once per run, also if the run is resumed."""
    before, after = stream.consumed(step), stream.consumed(step + 1)
    for name, source in stream.sources.items():
        if before[name] <= len(source) < after[name]:
            log.warning("All %d samples of source %s were seen; it starts over in another order.", len(source), name)


class _WorkerError:
    """An error sent from a data-loading process; if it were raised there, torch would wrap it in a traceback."""

    def __init__(self, error: UserError | RunFailure) -> None:
        self.kind, self.text = type(error), str(error)


class _Packed:
    """A batch sent from a data-loading process with its tensors packed into one, since sending each takes longer."""

    def __init__(self, batch: Mapping[str, Any]) -> None:
        self._batch = dict(batch)
        self._layout: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {}
        rows = []
        for key, value in batch.items():
            if isinstance(value, Tensor):
                row = value.reshape(-1).view(torch.uint8)
                rows += [row, row.new_zeros(-len(row) % _ALIGNED)]
                self._batch[key] = None
                self._layout[key] = value.dtype, tuple(value.shape)
        joined = torch.cat(rows)
        self._bytes: Tensor | np.ndarray = joined.numpy() if len(joined) < _SMALL else _shared(joined)

    def pin_memory(self) -> _Packed:
        """Copy the bytes to page-locked memory; torch calls this method."""
        self._bytes = torch.as_tensor(self._bytes).pin_memory()
        return self

    def unpacked(self) -> dict[str, Any]:
        """Return the batch; its tensors share memory but do not overlap."""
        row, start = torch.as_tensor(self._bytes), 0
        for key, (dtype, shape) in self._layout.items():
            stop = start + math.prod(shape) * dtype.itemsize
            self._batch[key] = row[start:stop].view(dtype).view(shape)
            start = stop + -stop % _ALIGNED
        return self._batch


def _shared(row: Tensor) -> Tensor:
    """Move a row to shared memory; where this is left to the thread that sends it, an error is lost there.

    Raises:
        RunFailure: If there is no room.
    """
    try:
        return row.share_memory_()
    except RuntimeError as error:
        raise RunFailure(
            f"A batch of {len(row):,} bytes has no room in the shared memory, /dev/shm ({error}); free some, give the "
            "machine or container more, or set num_workers of the data to 0."
        ) from error


class _WorkerStream(IterableDataset[Any]):
    """A stream that packs its flat batches in a data-loading process; its last item may be an error."""

    def __init__(self, stream: Stream | EvalStream) -> None:
        self.stream = stream

    def __iter__(self) -> Iterator[Any]:
        if get_worker_info() is None:
            yield from self.stream
            return
        try:
            for batch in self.stream:
                yield _Packed(batch) if isinstance(batch, dict) else batch
        except (UserError, RunFailure) as error:
            yield _WorkerError(error)
