"""Resumable work: finished rows in the journals of a folder, one journal per rank, and the lock of that folder."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeVar

from lit_core.errors import UserError
from lit_core.files.paths import atomic_write, locked_folder, remove_torn_files, sync_folder

Row = Mapping[str, Any]
Key = TypeVar("Key")
Written = TypeVar("Written")
Self = TypeVar("Self", bound="FinishedRows")


class Group(Protocol):
    """The processes that work together, such as a Fabric or the strategy of a Trainer."""

    def barrier(self, name: str | None = None) -> None:
        """Wait until every rank is here."""

    def broadcast(self, obj: Any, src: int = 0) -> Any:
        """Return the object of rank `src`."""


class FinishedRows:
    """Finished rows of resumable work, by key; a context that one group of processes enters at a time.

    1. Rank zero locks the folder, reads the keys of all finished rows and broadcasts them, so that all ranks agree on
       what is missing before any rank appends. If rank zero refuses, every rank raises the same error.
    2. Each rank appends rows to its own journal, a file of JSON lines. The number of ranks may differ between runs.
    3. `gather` waits for all ranks and reads the journals of all of them.

    A kill may leave part of a row at the end of a journal. It is ignored, and removed before the next row is appended.

    Args:
        folder: Folder of the journals; created if needed.
        key: Name of the value that identifies a row.
        busy: Error message where other processes work in the folder.
        journals: File names of the journals; ``*`` stands for the rank.
        rank: This process's rank.
        group: The processes that work together; None for this one alone.
    """

    def __init__(
        self,
        folder: Path,
        key: str,
        busy: str,
        journals: str = "*.jsonl",
        rank: int = 0,
        group: Group | None = None,
    ) -> None:
        self.folder, self.key, self.busy, self.journals = folder, key, busy, journals
        self.rank, self.group = rank, group
        #: Keys of the rows that were finished when the context was entered, the same on all ranks.
        self.done: set[Any] = set()
        self._journal: _Journal | None = None
        self._lock = ExitStack()

    def open(self) -> None:
        """Enter the context.

        Raises:
            UserError: If other processes work in the folder, or a journal holds anything but rows.
        """
        error: Exception | None = None
        if self.rank == 0:
            try:
                self._begin()
            except Exception as raised:  # the other ranks wait for the broadcast
                self._lock.close()
                error = raised
        if self.group is not None:
            error, self.done = self.group.broadcast((error, self.done))
        if error is not None:
            raise error

    def close(self) -> None:
        """Leave the context: close the journal and unlock the folder."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None
        self._lock.close()

    def __enter__(self: Self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def missing(self, keys: Iterable[Key]) -> list[Key]:
        """Return the keys of which no row is finished, in their order and each once."""
        return [key for key in dict.fromkeys(keys) if key not in self.done]

    def append(self, rows: Iterable[Row]) -> None:
        """Append rows to this rank's journal; when this returns they survive a kill and a power loss."""
        if self._journal is None:
            self._journal = _Journal(self.folder / self.journals.replace("*", str(self.rank)))
        self._journal.append(rows)

    def gather(self) -> dict[Any, dict[str, Any]]:
        """Wait for all ranks and return the finished rows of all of them, by key."""
        if self.group is not None:
            self.group.barrier("the rows are finished")
        return {row[self.key]: row for row in self._rows()}

    def _begin(self) -> None:
        """Lock the folder and read which rows are finished; on rank zero."""
        self.folder.mkdir(parents=True, exist_ok=True)
        handle = self._lock.enter_context(locked_folder(self.folder, self.busy))
        self._lock.callback(fcntl.flock, handle, fcntl.LOCK_UN)  # a forked process may hold the descriptor too
        if not self.folder.exists() or not os.path.samestat(os.fstat(handle), self.folder.stat()):
            raise UserError(self.busy)  # other processes have just finished and removed the folder
        self.done = {row[self.key] for row in self._rows()}

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob(self.journals))

    def _rows(self) -> Iterator[dict[str, Any]]:
        for path in self._paths():
            # after the last line break is nothing, or part of a row
            for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
                yield self._parsed(line, path, number)

    def _parsed(self, line: bytes, path: Path, number: int) -> dict[str, Any]:
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or self.key not in row:
            raise UserError(
                f"{path}, line {number}, is not a JSON object with `{self.key}`: the file is damaged or was written by "
                f"another version. Remove {self.folder} to start again."
            )
        return row


class UnfinishedWork(FinishedRows):
    """A folder of unfinished work, which exists from the first row until the final file is written.

    The folder holds the settings of the work beside the journals. Work that was begun with other settings is refused.

    Args:
        folder: The folder; created if needed, and removed by `finish`, or by `close` where no row is finished.
        key: Name of the value that identifies a row.
        settings: What the rows depend on, as plain values.
        differs: Returns the error message for the name of a setting, its value in the folder, and its value now.
        busy: Error message where other processes work in the folder.
        journals: File names of the journals; ``*`` stands for the rank.
        record: File name of the settings.
        rank: This process's rank.
        group: The processes that work together; None for this one alone.
    """

    def __init__(
        self,
        folder: Path,
        key: str,
        settings: Mapping[str, Any],
        differs: Callable[[str, Any, Any], str],
        busy: str,
        journals: str = "*.jsonl",
        record: str = "settings.json",
        rank: int = 0,
        group: Group | None = None,
    ) -> None:
        super().__init__(folder, key, busy, journals, rank, group)
        self.settings, self.differs, self.record = dict(settings), differs, folder / record
        self._is_open = False

    def open(self) -> None:
        """Enter the context.

        Raises:
            UserError: If other processes work in the folder, a journal holds anything but rows, or rows were finished
                with other settings.
        """
        super().open()
        self._is_open = True

    def close(self) -> None:
        """Leave the context; remove the folder where no row is finished."""
        if self._is_open and self.rank == 0 and next(self._rows(), None) is None:
            shutil.rmtree(self.folder)
        self._is_open = False
        super().close()

    def finish(self, write: Callable[[dict[Any, dict[str, Any]]], Written]) -> Written | None:
        """Wait for all ranks, write the final file on rank zero, and remove the folder.

        Args:
            write: Writes the final file, whole or not at all, from the finished rows by key.

        Returns:
            What `write` returned on rank zero; None on the other ranks.
        """
        written = None
        if self.rank == 0:
            written = write(self.gather())
            shutil.rmtree(self.folder)
        elif self.group is not None:
            self.group.barrier("the rows are finished")
        self._is_open = False
        if self.group is not None:
            self.group.barrier("the final file is written")
        return written

    def _begin(self) -> None:
        super()._begin()
        remove_torn_files(self.folder)
        former = self._former()
        now = json.loads(json.dumps(self.settings))
        for name in {**now, **former} if self.done else ():
            if _dump(former.get(name)) != _dump(now.get(name)):
                raise UserError(self.differs(name, former.get(name), now.get(name)))
        atomic_write(self.record, json.dumps(now, ensure_ascii=False, indent=1) + "\n")

    def _paths(self) -> list[Path]:
        return [path for path in super()._paths() if path != self.record]

    def _former(self) -> dict[str, Any]:
        """Return the settings in the folder."""
        try:
            return json.loads(self.record.read_bytes()) if self.record.is_file() else {}
        except ValueError as error:
            raise UserError(
                f"{self.record} is not valid JSON ({error}). Remove {self.folder} to start again."
            ) from error


class _Journal:
    """A file of JSON lines that one process appends to.

    Args:
        path: The file; created if needed. Part of a row at its end, which a kill left, is removed.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab+")
        self._file.seek(0)
        self._file.truncate(self._file.read().rfind(b"\n") + 1)
        sync_folder(path.parent)  # a new file's name survives a power loss, too

    def append(self, rows: Iterable[Row]) -> None:
        """Append rows and wait until they are on the disk."""
        self._file.write("".join(json.dumps(row) + "\n" for row in rows).encode())
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _dump(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
