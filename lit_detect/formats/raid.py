"""The format of RAID (Dugan et al., ACL 2024, arXiv 2405.07940)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lit_core.files.text_files import with_compressions
from lit_detect.formats.base import RowSource, Split
from lit_detect.formats.reading import name_cell, text_cell
from lit_detect.records import HUMAN, HUMAN_SOURCE, MACHINE, Record

_DECODING = {"decoding": "strategy", "repetition_penalty": "repetition_penalty"}
_META = ("title", "prompt", "num_edits", "adv_source_id")


class RAIDCSV(RowSource):
    """RAID's CSV with ``generation`` (the text), ``model`` (human for human texts) and ``source_id`` (the group).

    The texts of its test set, test.csv, have no labels: ``lit-detect prepare`` refuses them, ``predict`` judges them.

    Args:
        path: A .csv, perhaps compressed, such as train_none.csv, or a folder of them.
        name: Name of the source.
        split: Split of all texts; None lets prepare divide them.
        licence: Licence of the texts, which is recorded.

    Raises:
        UserError: If the path does not exist.
    """

    suffixes, kind = with_compressions(".csv"), ".csv"

    def __init__(self, path: str, name: str = "raid", split: Split | None = None, licence: str = "MIT") -> None:
        super().__init__([path], name, split, licence)

    def records_of_row(self, row: dict[str, Any], where: str, number: int, file: Path) -> Iterator[Record]:
        """Yield the text of a row; see the base class."""
        model, attack = name_cell(row, "model"), name_cell(row, "attack", "none")
        yield Record(
            id=text_cell(row, "id", where),
            text=text_cell(row, "generation", where),
            label=None if not model else HUMAN if model == HUMAN_SOURCE else MACHINE,
            source=model,
            domain=name_cell(row, "domain"),
            pair_id=name_cell(row, "source_id", row["id"]),
            decoding={name: row[column] for column, name in _DECODING.items() if row.get(column)},
            attack="" if attack == "none" else attack,
            meta={key: row[key] for key in _META if row.get(key)},
        )
