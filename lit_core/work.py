"""Resumable work over ranks: a locked folder, its settings, and a journal of finished rows per rank."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from lit_core.errors import UserError
from lit_core.files.exclusive_folder import ExclusiveFolder, Group
from lit_core.files.formats import NewerFormat, check_format, read_stamped, stamp
from lit_core.files.json_files import parse_json, plain
from lit_core.files.outputs import COMPLETE
from lit_core.files.paths import atomic_write, naming, remove_folder, remove_torn_files, sync_folder
from lit_core.files.remade import SET_ASIDE, free_name, read_or_set_aside
from lit_core.screen import say

#: Name of the format of journals and settings.
FORMAT = "litshift-work"

Row = Mapping[str, Any]
Key = TypeVar("Key")
Written = TypeVar("Written")


class FinishedRows(ExclusiveFolder):
    """Finished rows of resumable work, by key, in the journals of a folder.

    1. Rank zero reads the keys of all finished rows and broadcasts them, so that all ranks agree on what is missing
       before any rank appends.
    2. Each rank appends rows to its own journal, a file of JSON lines. The number of ranks may differ between runs.
    3. `gather` waits for all ranks and reads the journals of all of them.

    A kill may leave part of a row at the end of a journal. It is ignored, and removed before the next row is appended.
    A journal with a damaged line is set aside; its other rows are kept.

    Args:
        folder: Folder of the journals; created if needed.
        key: Name of the value that identifies a row.
        busy: Error message where other processes work in the folder.
        journals: File names of the journals; ``*`` stands for the rank.
        rank: This process's rank.
        group: The processes that work together; None for this one alone.
        values: Names of the other values that each row has.
    """

    def __init__(
        self,
        folder: Path,
        key: str,
        busy: str,
        journals: str = "*.jsonl",
        rank: int = 0,
        group: Group | None = None,
        values: Collection[str] = (),
    ) -> None:
        super().__init__(folder, busy, rank, group)
        self.key, self.journals, self.values = key, journals, values
        #: Keys of the rows that were finished when the context was entered, the same on all ranks.
        self.done: set[Any] = set()
        self._journal: _Journal | None = None

    def open(self) -> None:
        """Enter the context.

        Raises:
            UserError: If other processes work in the folder, or the rows depend on other settings.
        """
        super().open()
        if self.group is not None:
            self.done = self.group.broadcast(self.done)

    def close(self) -> None:
        """Leave the context; remove the folder if it is empty."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None
        super().close()

    def missing(self, keys: Iterable[Key]) -> list[Key]:
        """Return the keys without a finished row, in their order, without duplicates."""
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
        super()._begin()
        for path in self._paths():
            self._mend(path)
        self.done = {row[self.key] for row in self._rows()}

    def _mend(self, path: Path) -> None:
        """Set a journal with damaged lines aside, and keep its other rows; what it lacks is made anew."""
        aside, whole, damage = free_name(path), [], ""
        for number, line in enumerate(_lines(path), start=1):
            try:
                whole += [line + b"\n"] if self._parsed(line, path, number, aside) else []
            except NewerFormat:
                raise
            except UserError as error:
                damage = damage or str(error)
        if damage:
            shutil.copyfile(path, aside)
            head = json.dumps(stamp(FORMAT)).encode() + b"\n"
            atomic_write(path, head + b"".join(whole))
            say(damage, error=True)

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob(self.journals))

    def _rows(self) -> Iterator[dict[str, Any]]:
        for path in self._paths():
            for number, line in enumerate(_lines(path), start=1):
                yield from self._parsed(line, path, number)

    def _parsed(self, line: bytes, path: Path, number: int, aside: Path | None = None) -> list[dict[str, Any]]:
        """Return the row of a line; none of a first line that tells the version."""
        where = f"{path}, line {number},"
        remedy = "start again" if aside is None else f"the file is set aside as {aside}, and what it lacks is made anew"
        row: dict[str, Any] = parse_json(line, where, dict, remedy, lenient=True)
        if number == 1 and "format" in row:
            check_format(FORMAT, row, path, remedy)
            return []
        lacks = [name for name in (self.key, *self.values) if name not in row]
        if lacks or not isinstance(row[self.key], str | int):
            raise UserError(f"{where} is not an object with {', '.join(lacks or [self.key])}; {remedy}.")
        return [row]


class UnfinishedWork(FinishedRows):
    """Finished rows of work that ends with one file; the folder exists until that file is written.

    The folder also holds the settings of the work. Work that was begun with other settings is refused.

    Args:
        folder: The folder; created if needed, and removed by `finish`, or by `close` where nothing was appended.
        key: Name of the value that identifies a row.
        settings: What the rows depend on, as plain values.
        differs: Returns the error message for the name of a setting, its value in the folder, and its value now.
        busy: Error message where other processes work in the folder.
        journals: File names of the journals; ``*`` stands for the rank.
        record: File name of the settings.
        rank: This process's rank.
        group: The processes that work together; None for this one alone.
        values: Names of the other values that each row has.
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
        values: Collection[str] = (),
    ) -> None:
        super().__init__(folder, key, busy, journals, rank, group, values)
        self.settings, self.differs, self.record = dict(settings), differs, folder / record
        self._begun = False

    def finish(self, write: Callable[[dict[Any, dict[str, Any]]], Written]) -> Written | None:
        """Wait for all ranks, write the final file on rank zero, and remove the folder.

        Args:
            write: Writes the final file, whole or not at all, from the finished rows by key, and all that belongs to
                it. Where it is killed, the next command repeats it; see `output_file`.

        Returns:
            What `write` returned on rank zero; None on the other ranks.
        """
        written = None
        if self.rank == 0:
            rows = self.gather()
            atomic_write(self.folder / COMPLETE, "")
            written = write(rows)
            remove_folder(self.folder)
        elif self.group is not None:
            self.group.barrier("the rows are finished")
        if self.group is not None:
            self.group.barrier("the final file is written")
        return written

    def _begin(self) -> None:
        super()._begin()
        remove_torn_files(self.folder)
        former = self._former()
        now = plain(self.settings)
        for name in {**now, **former} if self.done else ():
            if _dump(former.get(name)) != _dump(now.get(name)):
                raise UserError(self.differs(name, former.get(name), now.get(name)))
        atomic_write(self.record, json.dumps({**stamp(FORMAT), **now}, ensure_ascii=False, indent=1) + "\n")
        self._begun = True

    def _remove_unused(self) -> None:
        lines = (line for path in self._paths() for line in _lines(path) if not line.startswith(b'{"format": '))
        if any(lines) or any(self.folder.glob(f"*{SET_ASIDE}*")):
            if self._begun:
                say(f"The finished rows are kept in {self.folder}; the same command resumes.", error=True)
        else:
            remove_folder(self.folder)

    def _paths(self) -> list[Path]:
        return [path for path in super()._paths() if path != self.record]

    def _former(self) -> dict[str, Any]:
        """Return the settings in the folder; rows whose settings are damaged are set aside with these."""
        if not self.record.is_file():
            return {}
        settings: dict[str, Any] | None = read_or_set_aside(
            self.record, lambda remedy: read_stamped(self.record, FORMAT, dict, remedy, lenient=True)
        )
        if settings is None:
            for path in self._paths():
                path.rename(free_name(path))
            self.done = set()
            return {}
        return {name: value for name, value in settings.items() if name not in stamp(FORMAT)}


class _Journal:
    """A file of JSON lines that one process appends to.

    Args:
        path: The file; created if needed. Part of a row at its end, which a kill left, is removed.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab+")
        self._file.seek(0)
        self._file.truncate(self._file.read().rfind(b"\n") + 1)
        self._file.seek(0, os.SEEK_END)
        sync_folder(path.parent)  # a new file's name survives a power loss, too

    def append(self, rows: Iterable[Row]) -> None:
        """Append rows, the first ones after the version of the format, and wait until they are on the disk."""
        head = [] if self._file.tell() else [stamp(FORMAT)]
        with naming(self._file.name):
            self._file.write("".join(json.dumps(row) + "\n" for row in [*head, *rows]).encode())
            self._file.flush()
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file; what an append could not write is tried again."""
        with naming(self._file.name):
            self._file.close()


def _lines(path: Path) -> list[bytes]:
    """Return the whole lines of a journal; after the last line break is nothing, or part of a row."""
    return path.read_bytes().split(b"\n")[:-1]


def _dump(value: Any) -> str:
    return json.dumps(value, sort_keys=True)
