"""Texts that are read by index when they are needed: what all formats share, folders of .txt, and prepared splits."""

from __future__ import annotations

import csv
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lit_core.data.stream import IGNORED
from lit_core.errors import RunFailure, UserError
from lit_core.files.listing import listed
from lit_core.files.text_files import read_text
from lit_detect.data.text_shards import TextSet
from lit_detect.formats.base import stem
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
    try:
        if file_state(path) != state:
            raise UserError("its size or time is another")
        yield
    except (OSError, EOFError, zlib.error, csv.Error, UserError) as error:
        raise RunFailure(
            f"{path} changed while it was read ({getattr(error, 'strerror', None) or error}); "
            "repeat with the file at rest."
        ) from error


class IndexedTexts(ABC):
    """Texts in a fixed order, each read when it is asked for. Safe in data-loading processes.

    Sample i is ``text``, ``y`` (-100, since a prediction is not told the label), ``index`` (i) and, where texts are
    grouped, ``group``. Empty texts are texts.

    Args:
        group_column: Column, key or field that groups the texts, such as a domain or language; None for no groups.
        transform: Applied to the text of a sample, such as `normalize_text`; None leaves it as it was found. Rows and
            records always have the text as it was found.

    Attributes:
        files: The files that are read.
        groups: The groups that occur; the empty string where texts are not grouped.
        blank: Number of blank rows, which are set aside.
    """

    def __init__(self, group_column: str | None, transform: Callable[[str], str] | None) -> None:
        self.group_column, self.transform = group_column, transform
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

    def records(self) -> Iterator[Record]:
        """Yield all records in their order; see `record`."""
        return (self.record(index) for index in range(len(self)))

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read one sample.

        Raises:
            RunFailure: If the file is not what it was when it was opened.
        """
        text, group = self.text_and_group(index)
        sample = {"text": self.transform(text) if self.transform else text, "y": IGNORED, "index": index}
        return sample if self.group_column is None else {**sample, "group": group}


def text_files(folder: Path) -> list[Path]:
    """Return the files of a folder whose names end in .txt, in small or capital letters, sorted by name.

    Raises:
        UserError: If there is a link that leads nowhere or out of the folder.
    """
    return [file for file in listed(folder) if file.suffix.lower() == ".txt" and file.is_file()]


class TextFolder(IndexedTexts):
    """A folder of .txt files, each of which is one text, sorted by name. A row has ``file`` and ``text``.

    Args:
        path: The folder.
        transform: Applied to the text of a sample; None leaves it as it was found.

    Raises:
        UserError: If a file is not in UTF-8, or is a link to a file that does not exist.
    """

    def __init__(self, path: Path, transform: Callable[[str], str] | None = None) -> None:
        super().__init__(None, transform)
        self.path, self.groups = path, {""}
        self.files = text_files(path)
        self._states = [file_state(file) for file in self.files]
        for file in self.files:
            read_text(file)

    def __len__(self) -> int:
        return len(self.files)

    def row(self, index: int) -> dict[str, Any]:
        """Read the name and the text of a file; see the base class."""
        file = self.files[index]
        with unchanged(file, self._states[index]):
            text = read_text(file)
        return {"file": file.name, "text": text}

    def record(self, index: int) -> Record:
        """Read a text, which is named after its file; see the base class."""
        return Record(stem(self.files[index]), self.row(index)["text"])

    def where(self, index: int) -> str:
        """Return the path of the file."""
        return str(self.files[index])

    def text_and_group(self, index: int) -> tuple[str, str]:
        """Read the text; see the base class."""
        return self.row(index)["text"], ""


class PreparedTexts(IndexedTexts):
    """The texts of one or more splits that ``lit-detect prepare`` wrote, one split after the other.

    Args:
        folders: Folders of the splits.
        group_column: Condition that groups the texts; see `condition`.
        transform: Applied to the text of a sample; None leaves it as it was found.

    Raises:
        UserError: If a folder is no text shard set.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        group_column: str | None = None,
        transform: Callable[[str], str] | None = None,
    ) -> None:
        super().__init__(group_column, transform)
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
