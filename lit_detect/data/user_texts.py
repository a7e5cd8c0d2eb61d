"""A user's texts in one file or folder, read by number as they are needed, in the order in which they stand there."""

from __future__ import annotations

import csv
import io
import json
import sys
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lit_core.data.stream import IGNORED
from lit_core.errors import RunFailure, UserError
from lit_detect.formats.base import files_of
from lit_detect.formats.reading import as_text, cell, decoded

#: How the names of files end that can be read.
SUFFIXES = (".csv", ".tsv", ".jsonl", ".txt")


class TextFile:
    """Texts to be judged: a CSV or TSV with a line of names, JSONL, a text per line of a .txt, or a folder of .txt.

    The file is read once when it is opened, which checks each row and notes where it begins; after that only the rows
    asked for. Sample i is ``text``, ``y`` (-100, unknown), ``index`` (i, the place in the file from 0, blank lines not
    counted) and, where there is a group column, ``group``. Empty texts are texts. Safe in data-loading processes.

    Args:
        path: A file that ends in .csv, .tsv, .jsonl or .txt, or a folder of .txt files, each a text, by name.
        text_column: Column or key of the text; not used for .txt.
        group_column: Column or key of what groups the texts, such as a domain or language; None where there is none.
        transform: What is done to the text of a sample, such as `normalize_text`; None gives it out as it is.

    Attributes:
        groups: The groups that occur; the empty string where there is no group column.

    Raises:
        UserError: If there is no such file, it is of another kind, or a row is malformed; names file and line.
    """

    def __init__(
        self,
        path: str | Path,
        text_column: str = "text",
        group_column: str | None = None,
        transform: Callable[[str], str] | None = None,
    ) -> None:
        self.path, self.text_column, self.group_column = Path(path).expanduser(), text_column, group_column
        self.transform = transform
        self.files = files_of(self.path, (".txt",), "The path of the texts")
        self.kind = "folder" if self.path.is_dir() else self.path.suffix.lower()
        if self.kind not in ("folder", *SUFFIXES):
            raise UserError(f"{path} must end in {', '.join(SUFFIXES)} or be a folder of .txt files; convert it.")
        if group_column is not None and self.kind in ("folder", ".txt"):
            raise UserError(f"group_column is {group_column}, but {path} has no columns; give a CSV or JSONL.")
        self.header: list[str] = []
        self.groups: set[str] = set()
        self._starts, self._ends, self._numbers = array("q"), array("q"), array("q")
        if self.kind == "folder":
            for index in range(len(self.files)):
                self.row(index)
        else:
            for number, start, end, content in self._rows():
                self.groups.add(self._sample_of(self._parsed(content, number), number).get("group", ""))
                self._starts.append(start)
                self._ends.append(end)
                self._numbers.append(number)
        if not len(self):
            raise UserError(f"{path} has no texts; give a file with some.")

    def __len__(self) -> int:
        return len(self.files) if self.kind == "folder" else len(self._starts)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read one sample.

        Raises:
            RunFailure: If the file is not what it was when it was opened.
        """
        sample = self._sample_of(self.row(index), self._numbers[index] if self._numbers else 0)
        text = self.transform(sample["text"]) if self.transform else sample["text"]
        return {**sample, "text": text, "y": IGNORED, "index": index}

    def row(self, index: int) -> dict[str, Any]:
        """Read one row as it stands in the file: all columns or keys; of a .txt ``text``, in a folder also ``file``.

        Raises:
            RunFailure: If the file is not what it was when it was opened.
        """
        if self.kind == "folder":
            file = self.files[index]
            return {"file": file.name, self.text_column: decoded(file.read_bytes(), str(file)).removeprefix("\ufeff")}
        start, end = self._starts[index], self._ends[index]
        try:
            with self.path.open("rb") as opened:
                opened.seek(start)
                content = opened.read(end - start)
            if len(content) != end - start:
                raise UserError(f"{self.path} is shorter than it was.")
            row = self._parsed(content, self._numbers[index])
            self._sample_of(row, self._numbers[index])
        except (OSError, UserError) as error:
            raise RunFailure(
                f"{self.path} changed while it was read ({error}); repeat with the file at rest."
            ) from error
        return row

    def _sample_of(self, row: dict[str, Any], number: int) -> dict[str, Any]:
        where = f"{self.path}, line {number}"
        sample = {"text": as_text(cell(row, self.text_column, where), f"{where}, {self.text_column}")}
        if self.group_column is not None:
            sample["group"] = str(cell(row, self.group_column, where))
        return sample

    def _rows(self) -> Iterator[tuple[int, int, int, bytes]]:
        """Yield line number, first byte, end and content of each row that is not blank."""
        with self.path.open("rb") as file:
            if self.kind in (".csv", ".tsv"):
                yield from self._table_rows(file)
                return
            place = 0
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, place, place + len(line), line
                place += len(line)

    def _table_rows(self, file: Any) -> Iterator[tuple[int, int, int, bytes]]:
        """Yield the rows of a table, whose cells may hold line breaks; the reader takes whole lines for each row."""
        taken: list[bytes] = []

        def lines() -> Iterator[str]:
            for number, line in enumerate(file, 1):
                taken.append(line)
                text = decoded(line, f"{self.path}, line {number}")
                yield text.removeprefix("\ufeff") if number == 1 else text

        csv.field_size_limit(sys.maxsize)  # texts are longer than the default allows
        rows = csv.reader(lines(), delimiter=self._separator, strict=True)
        place = 0
        try:
            for row in rows:
                content = b"".join(taken)
                taken.clear()
                if not self.header:
                    self.header = row
                    if len(set(self.header)) != len(self.header):
                        raise UserError(f"{self.path}, line 1 names a column twice; give each its own name.")
                elif row:
                    yield rows.line_num, place, place + len(content), content
                place += len(content)
        except csv.Error as error:
            raise UserError(
                f"{self.path}, line {rows.line_num} is no CSV ({error}); mend or restore the file."
            ) from error

    @property
    def _separator(self) -> str:
        return "\t" if self.kind == ".tsv" else ","

    def _parsed(self, content: bytes, number: int) -> dict[str, Any]:
        where = f"{self.path}, line {number}"
        text = decoded(content, where)
        if self.kind == ".txt":
            return {self.text_column: text.removeprefix("\ufeff").rstrip("\r\n")}
        if self.kind == ".jsonl":
            try:
                row = json.loads(text.removeprefix("\ufeff"))
            except (ValueError, RecursionError) as error:
                raise UserError(f"{where} is no JSON ({error}); restore the file or remove the line.") from error
            if not isinstance(row, dict):
                raise UserError(f"{where} holds no object with keys; mend the line.")
            return row
        cells = next(csv.reader(io.StringIO(text, newline="\n"), delimiter=self._separator, strict=True))
        if len(cells) != len(self.header):
            raise UserError(
                f"{where} ends a row of {len(cells)} cells, but the first line names {len(self.header)}; mend the row, "
                "or restore the file where it is cut off."
            )
        return dict(zip(self.header, cells, strict=True))
