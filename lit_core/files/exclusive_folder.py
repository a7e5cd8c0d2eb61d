"""`ExclusiveFolder`, a folder that one group of processes locks for itself, whatever the number of its ranks."""

from __future__ import annotations

import fcntl
import os
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeVar

from lit_core.errors import UserError
from lit_core.files.paths import locked_folder, make_folder

Self = TypeVar("Self", bound="ExclusiveFolder")


class Group(Protocol):
    """The processes that work together, such as a Fabric or the strategy of a Trainer."""

    def barrier(self, name: str | None = None) -> None:
        """Wait until every rank has called this."""

    def broadcast(self, obj: Any, src: int = 0) -> Any:
        """Return the object of rank `src`."""


class ExclusiveFolder:
    """A context manager that locks a folder for one group of processes; all ranks of the group enter it together.

    Rank zero locks the folder. If that fails, every rank raises the same error.

    Args:
        folder: The folder; created if needed.
        busy: Error message where other processes work in the folder.
        rank: This process's rank.
        group: The processes that work together; None for this one alone.
    """

    def __init__(self, folder: Path, busy: str, rank: int = 0, group: Group | None = None) -> None:
        self.folder, self.busy, self.rank, self.group = folder, busy, rank, group
        self._lock = ExitStack()

    def open(self) -> None:
        """Enter the context.

        Raises:
            UserError: If other processes work in the folder.
        """
        error: Exception | None = None
        if self.rank == 0:
            try:
                self._begin()
            except Exception as raised:  # the other ranks wait for the broadcast
                self._lock.close()
                error = raised
        if self.group is not None:
            error = self.group.broadcast(error)
        if error is not None:
            raise error

    def close(self) -> None:
        """Leave the context; remove the folder if it is empty."""
        self._lock.close()

    def __enter__(self: Self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self) -> None:
        """Lock the folder; called on rank zero only."""
        make_folder(self.folder)
        handle = self._lock.enter_context(locked_folder(self.folder, self.busy))
        self._lock.callback(fcntl.flock, handle, fcntl.LOCK_UN)  # a forked process may hold the descriptor too
        if not self._is_locked_by(handle):
            raise UserError(self.busy)  # other processes have just finished and removed the folder
        self._lock.callback(self._end, handle)

    def _end(self, handle: int) -> None:
        if self._is_locked_by(handle):  # and was not removed, and perhaps created by other processes since
            self._remove_unused()

    def _is_locked_by(self, handle: int) -> bool:
        return self.folder.exists() and os.path.samestat(os.fstat(handle), self.folder.stat())

    def _remove_unused(self) -> None:
        with suppress(OSError):  # not empty
            self.folder.rmdir()
