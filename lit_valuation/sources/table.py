"""Tables in the user's own CSV, Parquet or JSONL files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lit_core.errors import UserError, did_you_mean
from lit_core.files.paths import files_facts
from lit_core.screen import say
from lit_valuation.samples import Samples
from lit_valuation.sources.base import LabelledSource, label_of, name_of, number_of
from lit_valuation.sources.rows import cell_of, table_path, table_rows
from lit_valuation.sources.targets import TargetColumns

#: Absolute value above which a column trains badly beside others.
_WIDE = 100


class Table(LabelledSource):
    """A table of numbers, as CSV with a header line, as Parquet or as JSONL. A row is a sample.

    Args:
        path: Path of a .csv, .parquet or .jsonl file.
        name: Name of the source; None takes that of the file.
        label: Column of the classes. In JSONL it may hold lists, the labels of each row by name.
        labels: Columns of 0 and 1, one per label, in place of classes; None if there are none.
        values: Columns of numbers that are to be predicted, in place of classes; None if there are none.
        columns: Columns of the inputs; None takes all except those of targets and groups.
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
        name: str | None = None,
        label: str = "label",
        labels: list[str] | None = None,
        values: list[str] | None = None,
        columns: list[str] | None = None,
        group: str | None = None,
        separator: str = ",",
        licence: str = "unknown",
    ) -> None:
        self.name = name_of(name, Path(path).expanduser())
        self.path = table_path(path, self.name)
        if len(separator) != 1:
            raise UserError(
                f"separator of the source {self.name} is {separator!r}, but must be one character, such as ;."
            )
        self.licence, self.origin = licence, "a table"
        self.targets = TargetColumns(label, labels, values)
        self.targets.check_inputs(columns or ())
        self.group, self.given, self.separator = group, columns, separator

    def samples(self) -> Samples:
        """Return the rows in order.

        Raises:
            UserError: If a column is missing, or a cell is empty or not a number. The message names the place.
        """
        labels_and_groups = [*self.targets.columns, *([] if self.group is None else [self.group])]
        needed = None if self.given is None else [*labels_and_groups, *self.given]
        inputs: list[str] | None = self.given
        x: list[list[float]] = []
        labels, groups, places = [], [], []
        for where, row in table_rows(self.path, self.separator, needed):
            if inputs is None:
                inputs = [column for column in row if column not in labels_and_groups]
            if not x:
                self._check_columns(row, [*labels_and_groups, *inputs])
            further = row.keys() - {*labels_and_groups, *inputs} if self.given is None else ()
            for column in sorted(further):
                raise UserError(
                    f"{where} has {column}, but the first row has no such column; complete the rows, or name the "
                    "inputs in `columns`."
                )
            if not inputs:
                raise UserError(f"{self.path} has no columns except {', '.join(labels_and_groups)}; add the inputs.")
            x.append([self._number(cell_of(row, column, where), where, column) for column in inputs])
            labels.append(self.targets.read(row, where))
            if self.group is not None:
                groups.append(label_of(cell_of(row, self.group, where), f"{where}, column {self.group}"))
            places.append(where.removeprefix(f"{self.path}, "))
        columns = self.columns = tuple(inputs or ())
        if not x:
            raise UserError(f"{self.path} has no rows; add some.")
        values = np.array(x, dtype=np.float32)
        self._note_scales(values, columns)
        self.places = tuple(places)
        return self.targets.samples(self.name, values, labels, groups or None)

    def facts(self) -> dict[str, Any]:
        """Return the arguments, and the name, size and modification time of the file."""
        given = {"label": self.targets.label, "columns": self.given, "group": self.group, "separator": self.separator}
        return {**given, **self.targets.facts(), **files_facts([self.path])}

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
        remedy = "correct it, name the columns to use in `columns`, or, if this column tells the groups, name it in "
        return number_of(cell, f"{where}, column {column}", f"{remedy}`group`")
