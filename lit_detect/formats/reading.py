"""Readers of files of rows, of JSON, and of their cells; errors name file and line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lit_core.errors import UserError, did_you_mean
from lit_core.fetch.hub import HUB, HubRows
from lit_core.files.bad_rows import STOP, BadRows
from lit_core.files.json_files import json_lines, read_json
from lit_core.files.parquet_files import parquet_rows
from lit_core.files.rows import TAB, csv_rows
from lit_core.files.text_files import plain_name, refuse_other_kinds
from lit_detect.records import label_of

#: Ends of the names of files of rows.
KINDS = (".csv", ".tsv", ".jsonl", ".parquet")
#: Most characters of a text: the longest novels have five million.
_LONGEST = 10_000_000


def json_document(path: Path) -> dict[str, Any]:
    """Return the object of a JSON file, which is read at once.

    Raises:
        UserError: If the file is not a JSON object.
    """
    document: dict[str, Any] = read_json(path, remedy="restore it, or give a file of the right format", lenient=True)
    return document


def is_on_hub(file: Path) -> bool:
    """Tell whether what is named like a file is a data set, as ``hf:NAME:SPLIT``."""
    return str(file).startswith(HUB)


def rows_of(
    file: Path, kind: str = ".jsonl", columns: Sequence[str] | None = None, bad: BadRows = STOP
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield file and line, and the cells by column or key, of each row of a file or a data set of the hub.

    Args:
        file: JSONL, CSV, TSV or Parquet by the end of its name, perhaps compressed; or ``hf:NAME:SPLIT``.
        kind: As what a file with another end is read: .jsonl or .csv.
        columns: Columns that are needed of a Parquet file; None for all.
        bad: What becomes of malformed rows.

    Raises:
        UserError: If the file is damaged, or a row is malformed and that ends the command.
    """
    if is_on_hub(file):
        return ((f"{file}, row {number}", row) for number, row in enumerate(HubRows(str(file)), 1))
    ending = Path(plain_name(file)).suffix
    ending = ending if ending in KINDS else kind
    if ending == ".parquet":
        return parquet_rows(file, columns)
    refuse_other_kinds(file)
    return json_lines(file, bad) if ending == ".jsonl" else csv_rows(file, TAB if ending == ".tsv" else ",", bad)


def cell(row: Mapping[str, Any], column: str, where: str) -> Any:
    """Return the value of a row in a column.

    Args:
        row: The row, by column.
        column: Name of the column or key.
        where: File and line, for the error message.

    Raises:
        UserError: If there is no such column.
    """
    if column not in row:
        hint = did_you_mean(column, row) or f" There are {', '.join(map(str, row)) or 'none'}."
        raise UserError(f"{where} has no {column!r}. Name the right column or key, or fix the line.{hint}")
    return row[column]


def text_cell(row: Mapping[str, Any], columns: str | Sequence[str], where: str) -> str:
    """Return the text of a row in the first of the given columns that exists.

    Raises:
        UserError: If none of the columns exists, or the value is not a text.
    """
    names = [columns] if isinstance(columns, str) else list(columns)
    name = next((name for name in names if name in row), names[0])
    return as_text(cell(row, name, where), f"{where}, {name}")


def as_text(value: Any, where: str) -> str:
    """Return a value if it is a text.

    Raises:
        UserError: If it is not a text, is longer than any book, or has half a surrogate pair, which cannot be written
            as UTF-8.
    """
    if not isinstance(value, str):
        raise UserError(f"{where} is a {_kind(value)}, but must be a text. Fix the line.")
    if len(value) > _LONGEST:
        raise UserError(f"{where} has {len(value):,} characters, but one text has at most {_LONGEST:,}; divide it.")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{where} holds half a surrogate pair at character {error.start}. Fix the line.") from error
    return value


def name_cell(row: Mapping[str, Any], column: str, default: str = "") -> str:
    """Return the value of a row in a column as a string; the default if the value is missing or empty."""
    value = row.get(column)
    return default if value is None or value == "" else str(value)


def as_label(value: Any, where: str) -> int:
    """Return 0 for a label that means human, and 1 for one that means machine.

    Case, spaces, ``-`` and ``_`` are ignored, so ``Human-Written``, ``human_written`` and ``HUMAN WRITTEN`` are equal.
    Numbers mean 0 human and 1 machine.

    Raises:
        UserError: If the label means neither.
    """
    label = None if isinstance(value, bool) else label_of(value)
    if label is not None:
        return label
    raise UserError(
        f"{where} has the label {value!r}, which says neither human nor machine. Write human or machine (0 or 1), or "
        "read the file with TextTable and its human_values or machine_values."
    )


def as_split(value: Any, where: str) -> str:
    """Return ``train``, ``val`` or ``test`` for the usual names of splits; empty for None or an empty text.

    Raises:
        UserError: If the value is something else.
    """
    names = {"": "", "train": "train", "training": "train", "test": "test", "val": "val"}
    names |= dict.fromkeys(("valid", "validation", "dev"), "val")
    word = "" if value is None else str(value).strip().lower()
    if word not in names:
        raise UserError(f"{where} has the split {value!r}, but must be train, val or test. Fix the line.")
    return names[word]


def _kind(value: Any) -> str:
    names = {dict: "object", list: "list", str: "text", bool: "truth value", int: "number", float: "number"}
    return "null" if value is None else names.get(type(value), type(value).__name__)
