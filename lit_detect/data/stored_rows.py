"""Rows of Parquet files and of datasets that `datasets` reads."""

from __future__ import annotations

import os
from abc import abstractmethod
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lit_core.errors import UserError
from lit_core.fetch.hub import HubRows
from lit_core.files.bad_rows import STOP, BadRows
from lit_core.files.parquet_files import parquet_rows
from lit_core.record import note_input
from lit_detect.data.indexed_texts import file_state, unchanged
from lit_detect.data.rows import Recent, Rows
from lit_detect.formats.base import stem
from lit_detect.formats.reading import cell


class StoredRows(Rows):
    """Base class of rows that are stored with their types. The numbers of the rows that can be read are kept.

    Args:
        source: Their file or name.
        name: Begins the id of a row that has none of its own.
        text_column: Column of the text.
        group_column: Column or field of a record that groups the texts; None for no groups.
        transform: Applied to the text of a sample; None leaves it as it was found.
        bad: What becomes of rows without a text.
    """

    def __init__(
        self,
        source: Path | str,
        name: str,
        text_column: str,
        group_column: str | None,
        transform: Callable[[str], str] | None,
        bad: BadRows,
    ) -> None:
        super().__init__(text_column, group_column, transform, bad, name)
        self.source = source
        self._numbers = array("q")
        for number, row in enumerate(self._all()):
            where = f"{source}, row {number + 1}"
            if not number:
                cell(row, text_column, where)  # what the first one lacks, all lack
            try:
                self.groups.add(self._text_and_group(row, where)[1])
            except UserError as error:
                bad.add(where, error)
            else:
                self._numbers.append(number)

    def __len__(self) -> int:
        return len(self._numbers)

    def where(self, index: int) -> str:
        """Return the file or dataset, and the number of the row from 1."""
        return f"{self.source}, row {self._numbers[index] + 1}"

    @abstractmethod
    def _all(self) -> Iterator[dict[str, Any]]:
        """Yield all rows."""


class ParquetTexts(StoredRows):
    """A Parquet file, which is read in batches, forwards; rows that are asked for in order are decoded once.

    Args:
        path: The file.
        text_column: Column of the text.
        group_column: Column or field of a record that groups the texts; None for no groups.
        transform: Applied to the text of a sample; None leaves it as it was found.
        bad: What becomes of rows without a text.

    Raises:
        UserError: If the file is damaged or stands for far more than its size, or there is no such column.
    """

    def __init__(
        self,
        path: Path,
        text_column: str = "text",
        group_column: str | None = None,
        transform: Callable[[str], str] | None = None,
        bad: BadRows = STOP,
    ) -> None:
        self._path, self._state = path, file_state(path)
        self._needed = [text_column, *([] if group_column is None else [group_column])]
        self._open: tuple[int, Iterator[tuple[int, dict[str, Any]]], Recent[dict[str, Any]]] | None = None
        super().__init__(path, stem(path), text_column, group_column, transform, bad)
        self.files = [path]

    def row(self, index: int) -> dict[str, Any]:
        """Read one row; see the base class."""
        number = self._numbers[index]
        with unchanged(self._path, self._state):
            if self._open is None or self._open[0] != os.getpid():
                self._open = os.getpid(), enumerate(self._all()), Recent()
            _, rows, recent = self._open
            if number not in recent and recent and number < next(reversed(recent)):
                self._open = None
                return self.row(index)
            while number not in recent:
                at, row = next(rows, (-1, {}))
                if at < 0:
                    raise UserError("it has fewer rows than it had")
                recent.add(at, row, sum(len(value) for value in row.values() if isinstance(value, str)))
            return recent[number]

    def _all(self) -> Iterator[dict[str, Any]]:
        return (plain_row(row) for _, row in parquet_rows(self._path, self._needed))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": None}


class HubTexts(StoredRows):
    """A dataset of the Hugging Face hub, or a local folder that `datasets` reads.

    Args:
        name: ``hf:NAME:SPLIT``; see `HubRows`.
        text_column: Column of the text.
        group_column: Column or field of a record that groups the texts; None for no groups.
        transform: Applied to the text of a sample; None leaves it as it was found.
        bad: What becomes of rows without a text.

    Raises:
        UserError: If the dataset cannot be loaded, or there is no such column.
    """

    def __init__(
        self,
        name: str,
        text_column: str = "text",
        group_column: str | None = None,
        transform: Callable[[str], str] | None = None,
        bad: BadRows = STOP,
    ) -> None:
        self._rows = HubRows(name)
        short = name.partition(":")[2].replace("/", "-").replace(":", "-")
        super().__init__(name, short, text_column, group_column, transform, bad)
        self.files = self._rows.files
        for file in self.files:
            note_input(file, data_set=name)

    def row(self, index: int) -> dict[str, Any]:
        """Read one row; see the base class."""
        return plain_row(self._rows[self._numbers[index]])

    def _all(self) -> Iterator[dict[str, Any]]:
        return map(plain_row, self._rows)


def plain_row(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with texts in place of what JSON does not know, such as times and bytes."""
    kinds = (str, int, float, bool, list, dict, type(None))
    return {name: value if isinstance(value, kinds) else str(value) for name, value in row.items()}
