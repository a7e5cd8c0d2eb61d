"""Rows of the user's own tables, whatever the kind of the file."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from lit_core.errors import UserError, did_you_mean
from lit_core.files.json_files import json_lines
from lit_core.files.parquet_files import parquet_rows
from lit_core.files.rows import csv_rows

#: Ends of the names of tables that are read.
ENDINGS = (".csv", ".jsonl", ".parquet")


def table_path(path: str, name: str, argument: str = "path") -> Path:
    """Return the path of a source's table after a check.

    Args:
        path: The path as the user gives it.
        name: Name of the source.
        argument: Name of the argument, for the message.

    Raises:
        UserError: If there is no such file, or it is of another kind.
    """
    found = Path(path).expanduser()
    if not found.is_file():
        raise UserError(f"{argument} of the source {name} is {path}, but there is no such file; correct the path.")
    if found.suffix not in ENDINGS:
        kinds = f"{', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}"
        raise UserError(f"{argument} of the source {name} is {path}, but must end in {kinds}; convert the file.")
    return found


def table_rows(
    path: Path, separator: str = ",", columns: Collection[str] | None = None
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield file and line, and the cells by column, of each row of a table.

    Args:
        path: A .csv, .jsonl or .parquet file.
        separator: Character between the cells of a CSV.
        columns: Columns that are needed; None reads all.

    Raises:
        UserError: If the file is not a table of that kind.
    """
    if path.suffix == ".csv":
        return csv_rows(path, separator)
    return json_lines(path) if path.suffix == ".jsonl" else parquet_rows(path, columns)


def cell_of(row: Mapping[str, Any], column: str, where: str) -> Any:
    """Return a cell.

    Raises:
        UserError: If the row has no such column. The message names those that it has.
    """
    if column not in row:
        hint = did_you_mean(column, row) or f" There are {', '.join(map(str, row)) or 'none'}."
        raise UserError(f"{where}: there is no column {column}; correct the name, or the row.{hint}")
    return row[column]
