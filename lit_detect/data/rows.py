"""Rows with columns or keys, of which one is a text: what all files and datasets of such rows share."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from lit_core.files.bad_rows import STOP, BadRows
from lit_detect.data.indexed_texts import IndexedTexts
from lit_detect.formats.litshift import record_of_row
from lit_detect.formats.reading import as_text, cell
from lit_detect.records import NONE, Record, condition

Row = TypeVar("Row")


class Rows(IndexedTexts):
    """Base class of texts that are a column or key of rows.

    Args:
        text_column: Column or key of the text.
        group_column: Column, key or field of a record that groups the texts; None for no groups.
        transform: Applied to the text of a sample; None leaves it as it was found.
        bad: What becomes of malformed rows.
        name: Begins the id of a row that has none of its own.
    """

    def __init__(
        self,
        text_column: str,
        group_column: str | None,
        transform: Callable[[str], str] | None,
        bad: BadRows = STOP,
        name: str = "",
    ) -> None:
        super().__init__(group_column, transform, bad, name)
        self.text_column = text_column

    def record(self, index: int) -> Record:
        """Read one row as a record; columns that no field of a record is named after are in its ``meta``."""
        return record_of_row(self.row(index), self.where(index), self.text_column, f"{self.name}-{index + 1:07d}")

    def text_and_group(self, index: int) -> tuple[str, str]:
        """Read the text and the group of a row; see the base class."""
        return self._text_and_group(self.row(index), self.where(index))

    def _text_and_group(self, row: dict[str, Any], where: str) -> tuple[str, str]:
        text = as_text(cell(row, self.text_column, where), f"{where}, {self.text_column}")
        return text, "" if self.group_column is None else self._group(row, self.group_column, where)

    def _group(self, row: dict[str, Any], column: str, where: str) -> str:
        if column not in row:  # of records, also a key of meta, or what `condition` derives from several fields
            name = condition(record_of_row(row, where, self.text_column, ""), column)
            if name != NONE:
                return name
        return str(cell(row, column, where))


class Recent(OrderedDict[int, Row], Generic[Row]):
    """What was read last: a batch is asked for twice, and what is read forwards only would be read from its start."""

    _MOST = 1 << 24

    def __init__(self) -> None:
        super().__init__()
        self._sizes: dict[int, int] = {}
        self._total = 0

    def add(self, key: int, row: Row, size: int) -> None:
        """Keep a row of some bytes, and forget the oldest ones where all together would have very many."""
        self[key], self._sizes[key] = row, size + 100  # and what any row takes
        self._total += self._sizes[key]
        while len(self) > 1 and self._total > self._MOST:
            oldest, _ = self.popitem(last=False)
            self._total -= self._sizes.pop(oldest)
