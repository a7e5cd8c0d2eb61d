"""Records as ``lit-detect generate`` and ``lit-detect attack`` write them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from lit_core.errors import UserError, did_you_mean
from lit_detect.formats.base import FileSource, Split
from lit_detect.formats.reading import as_label, as_split, as_text, json_lines, text_cell
from lit_detect.records import HUMAN, HUMAN_SOURCE, Record

_FIELDS = tuple(field.name for field in fields(Record))
_NAMES = ("id", "source", "domain", "pair_id", "attack")


class LitShiftJSONL(FileSource):
    """Records as JSONL, one object per line with ``id``, ``text``, ``label`` and the other fields of a record.

    Args:
        path: A file that ends in .jsonl or .jsonl.gz, or a folder of them.
        name: Name of the source.
        split: Split of all texts; None keeps that of each record.
        licence: Licence of the texts, for the record.

    Raises:
        UserError: If there is no such file.
    """

    def __init__(self, path: str, name: str, split: Split | None = None, licence: str = "unknown") -> None:
        super().__init__([path], name, split, licence)

    def records_of(self, file: Path) -> Iterator[Record]:
        """Yield the records of one file.

        Raises:
            UserError: If a line is no record.
        """
        return read_records(file)


def read_records(file: str | Path) -> Iterator[Record]:
    """Yield the records of a JSONL file.

    Args:
        file: The file; ``.gz`` is decompressed.

    Raises:
        UserError: If a line is no record.
    """
    for where, row in json_lines(Path(file)):
        yield as_record(row, where)


def as_record(row: dict[str, Any], where: str) -> Record:
    """Return a record of what `Record.to_dict` gave.

    Args:
        row: Its fields by name; only ``id`` and ``text`` must be there.
        where: File and line, for messages.

    Raises:
        UserError: If a field is missing, unknown or of the wrong kind.
    """
    for key in row:
        if key not in _FIELDS:
            raise UserError(f"{where} has the key {key!r}, which is no field of a record.{did_you_mean(key, _FIELDS)}")
    text = text_cell(row, "text", where)
    text_cell(row, "id", where)
    values: dict[str, Any] = {name: as_text(row[name], f"{where}, {name}") for name in _NAMES if name in row}
    for name in ("decoding", "meta"):
        if name in row and not isinstance(row[name], dict):
            raise UserError(f"{where}, {name} is {row[name]!r}, but must be an object; mend the line.")
        values[name] = row.get(name, {})
    label = row.get("label")
    values["label"] = None if label is None else as_label(label, where)
    values["split"] = as_split(row.get("split"), where)
    if not values.get("source") and values["label"] == HUMAN:
        values["source"] = HUMAN_SOURCE
    return Record(text=text, **values)
