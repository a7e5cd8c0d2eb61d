"""`PartWriter`: checkpoint folders to which each device writes its part while the training goes on."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch.distributed as dist

from lit_core.errors import RunFailure, reason_of
from lit_core.files.paths import make_folder, replace_whole
from lit_core.files.temporary import temporary
from lit_core.lightning.sharded_checkpoint import Snapshot


class PartWriter:
    """Writes checkpoint folders in a thread of its own, one after the other; each device writes its part.

    Before a method returns, the content is copied to the host's memory, where at most one copy is held. A folder has a
    hidden name until all devices have written their parts; then rank 0 renames it, which replaces a former checkpoint.
    So a process that is killed leaves the former one.

    torch's own format (``torch.distributed.checkpoint``) is not used, since its reader unpickles what it finds.

    Args:
        rank: Rank of this process; all ranks make their writer, and call its methods, in the same order.
        world_size: Number of ranks.
    """

    def __init__(self, rank: int, world_size: int) -> None:
        self._rank, self._world_size = rank, world_size
        # the thread has a group of its own, since two threads must not use one at the same time
        self._group, self._group_of_thread = dist.new_group(backend="gloo"), dist.new_group(backend="gloo")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: list[Future[None]] = []
        self._snapshot: Snapshot | None = None
        self._failure: Exception | None = None

    def save(self, checkpoint: dict[str, Any], path: Path) -> None:
        """Begin to write a checkpoint; of the same weights as the one being written, nothing is copied again.

        Args:
            checkpoint: A checkpoint with divided tensors.
            path: The folder to be written.

        Raises:
            RunFailure: If a write before this one failed on any device.
        """
        pending = self._snapshot
        snapshot = None if pending is None else pending.again(checkpoint)
        names, shared = zip(*self._from_all((secrets.token_hex(8), snapshot is not None), self._group), strict=True)
        if snapshot is None or not all(shared):
            pending = snapshot = None
            self.wait()
            snapshot = Snapshot.take(checkpoint)
        self._snapshot = snapshot
        self._submit(partial(self._write, snapshot, path, names[0]))

    def after_writing(self, function: Callable[[], None]) -> None:
        """Call a function once all checkpoints before it are written; not at all if one of them failed.

        Args:
            function: Removes a checkpoint that these replace.
        """
        self._submit(function)

    def wait(self) -> None:
        """Wait until all is written.

        Raises:
            RunFailure: If a write failed on any device.
        """
        pending, self._pending, self._snapshot = self._pending, [], None
        for one in pending:
            one.result()

    def _submit(self, function: Callable[[], None]) -> None:
        self._pending.append(self._thread.submit(self._unless_failed, function))

    def _unless_failed(self, function: Callable[[], None]) -> None:
        if self._failure is not None:
            raise self._failure
        try:
            function()
        except Exception as failure:  # also that another process has died
            self._failure = failure
            raise

    def _from_all(self, value: Any, group: Any) -> list[Any]:
        values: list[Any] = [None] * self._world_size
        dist.all_gather_object(values, value, group=group)
        return values

    def _write(self, snapshot: Snapshot, path: Path, write: str) -> None:
        """Write this device's part; rank 0 begins the folder and ends it."""
        with ExitStack() as held:
            folder, error = "", ""
            try:
                if self._rank == 0:
                    make_folder(path.parent)
                    new = held.enter_context(temporary(path, folder=True))
                    new.chmod(0o755)
                    folder = str(new)
            except Exception as failed:  # such as of a full disk; the others wait
                error = reason_of(failed)
            folder = self._from_all(folder, self._group_of_thread)[0]
            try:
                if folder:
                    snapshot.write(Path(folder), self._rank, self._world_size, write)
            except Exception as failed:
                error = reason_of(failed)
            errors = {rank: one for rank, one in enumerate(self._from_all(error, self._group_of_thread)) if one}
            if errors:
                rank, reason = min(errors.items())
                raise RunFailure(f"The checkpoint {path} was not written, since rank {rank} failed: {reason}")
            if self._rank == 0:
                replace_whole(path, Path(folder))
            dist.barrier(self._group_of_thread)  # no rank takes it for written before it has its name
        if self._snapshot is snapshot:
            self._snapshot = None  # its memory is free before the next one is taken
