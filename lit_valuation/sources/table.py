"""Tables in the user's own CSV or Parquet files."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lit_core.errors import UserError, did_you_mean
from lit_core.files.parquet_files import parquet_rows
from lit_core.files.paths import files_facts
from lit_core.files.rows import csv_rows
from lit_core.screen import say
from lit_valuation.samples import Samples
from lit_valuation.sources.base import LARGEST, LabelledSource, check_name, to_samples

#: Absolute value above which a column trains badly beside others.
_WIDE = 100


class Table(LabelledSource):
    """A table of numbers, as CSV with a header line or as Parquet. A row is a sample.

    Args:
        path: Path of a .csv or .parquet file.
        name: Name of the source.
        label: Column of the classes.
        columns: Columns of the inputs; None takes all except label and group.
        group: Column of the groups; None if there are no groups.
        separator: Character between the cells of a CSV.
        licence: Licence of the data, for the record.

    Raises:
        UserError: If the file does not exist or has another suffix, or the separator is not one character.
    """

    input = "table"

    def __init__(
        self,
        path: str,
        name: str,
        label: str,
        columns: list[str] | None = None,
        group: str | None = None,
        separator: str = ",",
        licence: str = "unknown",
    ) -> None:
        self.path = Path(path).expanduser()
        if not self.path.is_file():
            raise UserError(f"path of the source {name} is {path}, but there is no such file; correct the path.")
        if self.path.suffix not in (".csv", ".parquet"):
            raise UserError(f"path of the source {name} is {path}, but must end in .csv or .parquet; convert the file.")
        if len(separator) != 1:
            raise UserError(f"separator of the source {name} is {separator!r}, but must be one character, such as ;.")
        self.name, self.licence, self.origin = check_name(name), licence, "a table"
        self.label, self.group, self.given, self.separator = label, group, columns, separator

    def samples(self) -> Samples:
        """Return the rows in order.

        Raises:
            UserError: If a column is missing, or a cell is empty or not a number. The message names the place.
        """
        labels_and_groups = [self.label] if self.group is None else [self.label, self.group]
        needed = None if self.given is None else [*labels_and_groups, *self.given]
        is_csv = self.path.suffix == ".csv"
        rows = csv_rows(self.path, self.separator) if is_csv else parquet_rows(self.path, needed)
        inputs: list[str] | None = self.given
        x: list[list[float]] = []
        labels, groups = [], []
        for where, row in rows:
            if inputs is None:
                inputs = [column for column in row if column not in labels_and_groups]
            if not x:
                self._check_columns(row, [*labels_and_groups, *inputs])
            if not inputs:
                raise UserError(f"{self.path} has no columns except {', '.join(labels_and_groups)}; add the inputs.")
            x.append([self._number(row[column], where, column) for column in inputs])
            labels.append(self._name(row[self.label], where, self.label))
            if self.group is not None:
                groups.append(self._name(row[self.group], where, self.group))
        columns = self.columns = tuple(inputs or ())
        if not x:
            raise UserError(f"{self.path} has no rows; add some.")
        values = np.array(x, dtype=np.float32)
        self._note_scales(values, columns)
        return to_samples(self.name, values, labels, groups or None)

    def facts(self) -> dict[str, Any]:
        """Return the arguments, and the name, size and modification time of the file."""
        given = {"label": self.label, "columns": self.given, "group": self.group, "separator": self.separator}
        return {**given, **files_facts([self.path])}

    def _note_scales(self, values: np.ndarray, columns: Sequence[str]) -> None:
        """Print a note if a column's values are so large that a network trains badly on them."""
        largest = np.abs(values).max(0)
        column = int(largest.argmax())
        if largest[column] > _WIDE:
            say(
                f"Note: {self.path} has values up to {largest[column]:,.6g} in the column {columns[column]}. "
                "Networks take them as they are: scale the columns to about -1 to 1, in the same way for all parties.",
                error=True,
            )

    def _check_columns(self, row: Mapping[str, Any], columns: Sequence[str]) -> None:
        for column in columns:
            if column not in row:
                hint = did_you_mean(column, row) or f" There are {', '.join(row) or 'none'}."
                raise UserError(f"{self.path} has no column {column}; correct the name, or the header.{hint}")

    @staticmethod
    def _number(cell: Any, where: str, column: str) -> float:
        try:
            number = float(cell)
        except (TypeError, ValueError):
            number = math.nan
        if not abs(number) <= LARGEST:  # nor nan
            raise UserError(
                f"{where}, column {column}: {cell!r} is not a finite float32; correct it, name the columns to use in "
                "`columns`, or, if this column tells the groups, name it in `group`."
            )
        return number

    @staticmethod
    def _name(cell: Any, where: str, column: str) -> str:
        if cell is None or not str(cell).strip():
            raise UserError(f"{where}, column {column}: the cell is empty; fill it or remove the row.")
        return str(cell).strip()
