"""Texts that are read by index when they are needed: what all formats share, several files, and prepared splits."""

from __future__ import annotations

import csv
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

from lit_core.data.stream import IGNORED
from lit_core.errors import RunFailure, UserError
from lit_core.files.bad_rows import STOP, BadRows
from lit_core.files.text_files import damage
from lit_detect.data.text_shards import TextSet
from lit_detect.records import Record, condition


def file_state(path: Path) -> tuple[int, int]:
    """Return size and modification time of a file, which tell whether it changes."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


@contextmanager
def unchanged(path: Path, state: tuple[int, int]) -> Iterator[None]:
    """Refuse what the block reads of a file that is not in the state in which it was opened.

    Raises:
        RunFailure: If the file has another size or time, is gone, or has a malformed row.
    """
    refused: tuple[type[Exception], ...] = (OSError, csv.Error, UserError, *damage())
    try:
        if file_state(path) != state:
            raise UserError("its size or time is another")
        yield
    except refused as error:
        raise RunFailure(
            f"{path} changed while it was read ({getattr(error, 'strerror', None) or error}); "
            "repeat with the file at rest."
        ) from error


class IndexedTexts(ABC):
    """Texts in a fixed order, each read when it is asked for. Safe in data-loading processes.

    Sample i is ``text``, ``y`` (-100, since a prediction is not told the label), ``index`` (i) and, where texts are
    grouped, ``group``; where they are transformed, ``found`` is the text before. Empty texts are texts.

    Args:
        group_column: Column, key or field that groups the texts, such as a domain or language; None for no groups.
        transform: Applied to the text of a sample, such as `normalize_text`; None leaves it as it was found. Rows and
            records always have the text as it was found.
        bad: What becomes of rows that cannot be read.

    Attributes:
        files: The files that are read.
        groups: The groups that occur; the empty string where texts are not grouped.
        blank: Number of blank rows, which are left out.
        name: Begins the id of a text that has none of its own.
    """

    def __init__(
        self, group_column: str | None, transform: Callable[[str], str] | None, bad: BadRows = STOP, name: str = ""
    ) -> None:
        self.group_column, self.transform, self.bad, self.name = group_column, transform, bad, name
        self.files: list[Path] = []
        self.groups: set[str] = set()
        self.blank = 0

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def row(self, index: int) -> dict[str, Any]:
        """Read everything that is known of one text, by the names of the columns, keys or fields.

        Raises:
            RunFailure: If the file is not what it was when it was opened.
        """

    @abstractmethod
    def record(self, index: int) -> Record:
        """Read one text with all that is known of it; the label is None where it is not known.

        Raises:
            UserError: If the label is neither human nor machine, or a field is malformed.
            RunFailure: If the file is not what it was when it was opened.
        """

    @abstractmethod
    def where(self, index: int) -> str:
        """Return the file and the line of a text, for messages."""

    @abstractmethod
    def text_and_group(self, index: int) -> tuple[str, str]:
        """Read the text as it was found, and its group.

        Raises:
            RunFailure: If the file is not what it was when it was opened.
        """

    def numbered_records(self) -> Iterator[tuple[int, Record]]:
        """Yield index and record of each text; one whose label or fields are malformed is a bad row. See `record`."""
        for index in range(len(self)):
            try:
                record = self.record(index)
            except UserError as error:
                self.bad.add(self.where(index), error)
            else:
                yield index, record

    def records(self) -> Iterator[Record]:
        """Yield all records in their order; see `numbered_records`."""
        return (record for _, record in self.numbered_records())

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read one sample.

        Raises:
            RunFailure: If the file is not what it was when it was opened.
        """
        text, group = self.text_and_group(index)
        sample: dict[str, Any] = {"text": text, "y": IGNORED, "index": index}
        if self.transform is not None:
            sample |= {"text": self.transform(text), "found": text}
        return sample if self.group_column is None else {**sample, "group": group}


class SeveralTexts(IndexedTexts):
    """The texts of several files or folders, one after the other.

    Args:
        parts: What was opened of each, with equal columns and transforms.
    """

    def __init__(self, parts: Sequence[IndexedTexts]) -> None:
        first = parts[0]
        super().__init__(first.group_column, first.transform, first.bad)
        self.parts = parts
        self.files = [file for part in parts for file in part.files]
        self.groups = set().union(*(part.groups for part in parts))
        self.blank = sum(part.blank for part in parts)
        self._ends = list(accumulate(map(len, parts)))

    def __len__(self) -> int:
        return self._ends[-1]

    def row(self, index: int) -> dict[str, Any]:
        """Read a row of the part that has it; see the base class."""
        part, number = self._part(index)
        return part.row(number)

    def record(self, index: int) -> Record:
        """Read a record of the part that has it; see the base class."""
        part, number = self._part(index)
        return part.record(number)

    def where(self, index: int) -> str:
        """Return the file and the line of a text, for messages."""
        part, number = self._part(index)
        return part.where(number)

    def text_and_group(self, index: int) -> tuple[str, str]:
        """Read text and group from the part that has them; see the base class."""
        part, number = self._part(index)
        return part.text_and_group(number)

    def _part(self, index: int) -> tuple[IndexedTexts, int]:
        number = bisect_right(self._ends, index)
        return self.parts[number], index - (self._ends[number - 1] if number else 0)


class PreparedTexts(IndexedTexts):
    """The texts of one or more splits that ``lit-detect prepare`` wrote, one split after the other.

    Args:
        folders: Folders of the splits.
        group_column: Condition that groups the texts; see `condition`.
        transform: Applied to the text of a sample; None leaves it as it was found.
        bad: What becomes of records that readers refuse.

    Raises:
        UserError: If a folder is no text shard set.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        group_column: str | None = None,
        transform: Callable[[str], str] | None = None,
        bad: BadRows = STOP,
    ) -> None:
        super().__init__(group_column, transform, bad)
        sets = [TextSet(folder) for folder in folders]
        self.files = [folder / "index.json" for folder in folders]
        self._samples = [(texts, index) for texts in sets for index in range(len(texts))]
        if group_column is None:
            self.groups = {""}
        else:
            self.groups = {condition(texts.about(index), group_column) for texts, index in self._samples}

    def __len__(self) -> int:
        return len(self._samples)

    def row(self, index: int) -> dict[str, Any]:
        """Read the fields of a record; see the base class."""
        return self.record(index).to_dict()

    def record(self, index: int) -> Record:
        """Read a record; see the base class."""
        texts, number = self._samples[index]
        return texts.record(number)

    def where(self, index: int) -> str:
        """Return the folder of the split and the index of the text in it."""
        texts, number = self._samples[index]
        return f"{texts.folder}, text {number}"

    def text_and_group(self, index: int) -> tuple[str, str]:
        """Read the text and its group; see the base class."""
        record = self.record(index)
        return record.text, "" if self.group_column is None else condition(record, self.group_column)
