"""Files with a text in each row: tables, JSONL, and plain text with a text per line."""

from __future__ import annotations

import io
import os
from abc import abstractmethod
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from lit_core.errors import UserError
from lit_core.files.bad_rows import STOP, BadRows
from lit_core.files.json_files import parse_json
from lit_core.files.rows import TAB, by_column, csv_cells, separated
from lit_core.files.text_files import (
    COMPRESSIONS,
    decoded,
    lines_of,
    open_bytes,
    opened,
    plain_name,
    refuse_other_kinds,
)
from lit_detect.data.indexed_texts import file_state, unchanged
from lit_detect.data.rows import Recent, Rows
from lit_detect.formats.base import stem
from lit_detect.formats.reading import cell
from lit_detect.records import Record


class RowFile(Rows):
    """A file with a text in each row; compressed ones are decompressed.

    The file is read once when it is opened, which checks the text and the group of each row and notes where it begins.
    After that only the rows that are asked for are read. Blank lines are not counted.

    Args:
        path: The file.
        text_column: Column or key of the text.
        group_column: Column, key or field of a record that groups the texts; None for no groups.
        transform: Applied to the text of a sample; None leaves it as it was found.
        bad: What becomes of malformed rows.

    Raises:
        UserError: If a row is malformed and that ends the command, or the whole file is; names file and line.
    """

    def __init__(
        self,
        path: Path,
        text_column: str = "text",
        group_column: str | None = None,
        transform: Callable[[str], str] | None = None,
        bad: BadRows = STOP,
    ) -> None:
        super().__init__(text_column, group_column, transform, bad, stem(path))
        self.path, self.files = path, [path]
        self._state = file_state(path)
        self._starts, self._ends, self._lines = array("q"), array("q"), array("q")
        self._decompressed: tuple[int, IO[bytes], Recent[bytes]] | None = None  # and the process that opened it
        refuse_other_kinds(path)
        with opened(path) as file:
            for line, start, end, content in self._scan(file):
                where = f"{path}, line {line}"
                try:
                    group = self._text_and_group(self._parsed(content, where), where)[1]
                except UserError as error:
                    bad.add(where, error)
                    continue
                self.groups.add(group)
                self._starts.append(start)
                self._ends.append(end)
                self._lines.append(line)

    def __len__(self) -> int:
        return len(self._starts)

    def where(self, index: int) -> str:
        """Return the path of the file and the number of the line in which the row ends."""
        return f"{self.path}, line {self._lines[index]}"

    def row(self, index: int) -> dict[str, Any]:
        """Read one row as it stands in the file; see the base class."""
        with unchanged(self.path, self._state):
            content = self._content(self._starts[index], self._ends[index])
            row = self._parsed(content, self.where(index))
            self._text_and_group(row, self.where(index))
        return row

    def _scan(self, file: IO[bytes]) -> Iterator[tuple[int, int, int, bytes]]:
        """Yield line, first byte, end and content of each row."""
        for where, line in lines_of(file, self.path, self.bad):
            if line.strip():
                end = file.tell()
                yield int(where.rpartition(" ")[2]), end - len(line), end, line
            else:
                self.blank += 1

    @abstractmethod
    def _parsed(self, content: bytes, where: str) -> dict[str, Any]:
        """Return the row that some bytes of the file hold."""

    def _content(self, start: int, end: int) -> bytes:
        if self.path.suffix.lower() in COMPRESSIONS:
            file, recent = self._decompressed_file()
            if start not in recent:
                file.seek(start)
                recent.add(start, file.read(end - start), end - start)
            content = recent[start]
        else:
            with self.path.open("rb") as file:
                file.seek(start)
                content = file.read(end - start)
        if len(content) != end - start:
            raise UserError("it is shorter than it was")
        return content

    def _decompressed_file(self) -> tuple[IO[bytes], Recent[bytes]]:
        """Return the file, kept open by each process, so that rows read in order are decompressed once."""
        if self._decompressed is None or self._decompressed[0] != os.getpid():
            self._decompressed = os.getpid(), open_bytes(self.path), Recent()
        return self._decompressed[1:]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_decompressed": None}


class TextLines(RowFile):
    """A .txt file with a text per line, which ends in a line feed, with or without a carriage return before it."""

    def _parsed(self, content: bytes, where: str) -> dict[str, Any]:
        text = decoded(content, where).rstrip("\r\n")
        if "\r" in text:
            raise UserError(
                f"{where} has a carriage return inside, so it may be several texts; end each text with a line feed, or "
                "give a .csv or .jsonl, whose texts may have line breaks."
            )
        return {self.text_column: text}

    def record(self, index: int) -> Record:
        """Read one line as a record; see the base class."""
        return Record(f"{self.name}-{index + 1:07d}", self.row(index)[self.text_column])


class JSONLines(RowFile):
    """A JSONL file: records as ``lit-detect generate`` and ``attack`` write them, or objects with other keys."""

    def _parsed(self, content: bytes, where: str) -> dict[str, Any]:
        row: dict[str, Any] = parse_json(
            content, where, remedy="restore the file, or fix or remove the line", lenient=True
        )
        return row


class Table(RowFile):
    """A CSV or TSV file with a line of names. The cells of a CSV file may hold line breaks; a TSV file has no quoting.

    Attributes:
        header: The names of the columns.
    """

    @property
    def _separator(self) -> str:
        return TAB if plain_name(self.path).endswith(".tsv") else ","

    def _scan(self, file: IO[bytes]) -> Iterator[tuple[int, int, int, bytes]]:
        self.header: list[str] = []
        for line, row, start, content in csv_cells(file, self.path, self._separator, self.bad):
            if not self.header:
                self.header = row
                self._check_header()
                cell(dict.fromkeys(row), self.text_column, f"{self.path}, line {line}")
            elif row:
                yield line, start, start + len(content), content
            else:
                self.blank += 1

    def _check_header(self) -> None:
        """Refuse column names that occur twice, and one name that seems to be several, separated otherwise."""
        if len(set(self.header)) != len(self.header):
            raise UserError(f"{self.path}, line 1 names a column twice; give each its own name.")
        others, separator = (",;", "a tab") if self._separator == TAB else ("\t;", "a comma")
        if len(self.header) == 1 and self.header != [self.text_column] and set(others) & set(self.header[0]):
            raise UserError(
                f"{self.path}, line 1 names a single column, {self.header[0]!r}, but columns must be separated by "
                f"{separator}; convert the file."
            )

    def _parsed(self, content: bytes, where: str) -> dict[str, Any]:
        text = decoded(content, where)
        cells: list[str] = next(separated(io.StringIO(text, newline="\n"), self._separator), [])
        return by_column(self.header, cells, where, self._separator)
