"""Records in the JSONL format that ``lit-detect generate`` and ``lit-detect attack`` write."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from lit_core.errors import UserError, did_you_mean
from lit_core.files.json_files import json_lines
from lit_detect.formats.base import RowSource, Split
from lit_detect.formats.reading import as_label, as_split, as_text, cell, text_cell
from lit_detect.records import HUMAN, HUMAN_SOURCE, NONE, Record

_FIELDS = tuple(field.name for field in fields(Record))
_NAMES = ("id", "source", "domain", "pair_id", "attack")


class LitShiftJSONL(RowSource):
    """Records as JSONL, one object per line with ``id``, ``text``, ``label`` and the other fields of a record.

    Args:
        path: A .jsonl, perhaps compressed, or a folder of them.
        name: Name of the source.
        split: Split of all texts; None keeps that of each record.
        licence: Licence of the texts, for the record.

    Raises:
        UserError: If there is no such file.
    """

    def __init__(self, path: str, name: str, split: Split | None = None, licence: str = "unknown") -> None:
        super().__init__([path], name, split, licence)

    def records_of_row(self, row: dict[str, Any], where: str, number: int, file: Path) -> Iterator[Record]:
        """Yield the record of a line; see the base class."""
        yield as_record(row, where)


def read_records(file: str | Path) -> Iterator[Record]:
    """Yield the records of a JSONL file.

    Args:
        file: The file; compressed ones are decompressed.

    Raises:
        UserError: If a line is not a record.
    """
    for where, row in json_lines(Path(file)):
        yield as_record(row, where)


def as_record(row: dict[str, Any], where: str) -> Record:
    """Return the record of a row that `Record.to_dict` returned.

    Args:
        row: The fields by name; only ``id`` and ``text`` are required.
        where: File and line, for the error message.

    Raises:
        UserError: If a field is missing, unknown or of the wrong kind.
    """
    for key in row:
        if key not in _FIELDS:
            hint = did_you_mean(key, _FIELDS)
            raise UserError(f"{where} has the key {key!r}, which is not a field of a record. Rename it.{hint}")
    text = text_cell(row, "text", where)
    text_cell(row, "id", where)
    values: dict[str, Any] = {name: as_text(row[name], f"{where}, {name}") for name in _NAMES if name in row}
    for name in ("decoding", "meta"):
        if name in row and not isinstance(row[name], dict):
            raise UserError(f"{where}, {name} is {row[name]!r}, but must be an object. Fix the line.")
        values[name] = row.get(name, {})
    label = row.get("label")
    values["label"] = None if label is None else as_label(label, where)
    values["split"] = as_split(row.get("split"), where)
    if not values.get("source") and values["label"] == HUMAN:
        values["source"] = HUMAN_SOURCE
    return Record(text=text, **values)


def record_of_row(row: Mapping[str, Any], where: str, text_column: str, name: str) -> Record:
    """Return the record of a row of any table or JSONL file.

    Columns that are named like fields of a record become these fields; the others are added to ``meta``.

    Args:
        row: The cells by column.
        where: File and line, for the error message.
        text_column: Column of the text.
        name: The record's ``id`` if the row has none.

    Returns:
        The record; its label is None if the column ``label`` is missing or its cell is empty.

    Raises:
        UserError: If a field is malformed, or a column seems to be a misspelt ``label``.
    """
    for key in () if "label" in row else row:
        if get_close_matches("label", [key.lower()], cutoff=0.8):
            raise UserError(f"{where} has {key!r} but no 'label'. Name the label so, or rename that column.")
    values: dict[str, Any] = {"id": name, "text": cell(row, text_column, where)}
    extra: dict[str, Any] = {}
    for key, value in row.items():
        if key == text_column:
            continue
        if key not in _FIELDS or key == "text" or (key == "meta" and isinstance(value, str)):
            extra[key] = value
        elif value is None or value == "" or (key == "attack" and value == NONE):
            continue
        elif key == "decoding" and isinstance(value, str):
            values[key] = {"name": value}
        else:
            values[key] = str(value) if key in _NAMES and isinstance(value, int | float) else value
    record = as_record(values, where)
    return replace(record, meta={**extra, **record.meta})
