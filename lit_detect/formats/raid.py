"""The format of RAID (Dugan et al., ACL 2024, arXiv 2405.07940)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lit_core.errors import UserError
from lit_core.files.rows import csv_rows
from lit_detect.formats.base import FileSource, Split
from lit_detect.formats.reading import name_cell, text_cell
from lit_detect.records import HUMAN, HUMAN_SOURCE, MACHINE, Record

_DECODING = {"decoding": "strategy", "repetition_penalty": "repetition_penalty"}
_META = ("title", "prompt", "num_edits", "adv_source_id")


class RAIDCSV(FileSource):
    """RAID's CSV with ``generation`` (the text), ``model`` (human for human texts) and ``source_id`` (the group).

    Args:
        path: A file that ends in .csv or .csv.gz, such as train_none.csv, or a folder of them.
        name: Name of the source.
        split: Split of all texts; None lets prepare divide them.
        licence: Licence of the texts, which is recorded.

    Raises:
        UserError: If the path does not exist.
    """

    suffixes = (".csv", ".csv.gz")

    def __init__(self, path: str, name: str = "raid", split: Split | None = None, licence: str = "MIT") -> None:
        super().__init__([path], name, split, licence)

    def records_of(self, file: Path) -> Iterator[Record]:
        """Yield the texts of one file.

        Raises:
            UserError: If a row lacks a cell, or the file is the test set, which has no labels.
        """
        for where, row in csv_rows(file):
            model = name_cell(row, "model")
            if not model:
                raise UserError(
                    f"{where} names no model, so the text has no label, as in RAID's test set. Read the training set, "
                    "or give this file to `predict`."
                )
            is_human = model == HUMAN_SOURCE
            attack = name_cell(row, "attack", "none")
            yield Record(
                id=text_cell(row, "id", where),
                text=text_cell(row, "generation", where),
                label=HUMAN if is_human else MACHINE,
                source=model,
                domain=name_cell(row, "domain"),
                pair_id=name_cell(row, "source_id", row["id"]),
                decoding={name: row[column] for column, name in _DECODING.items() if row.get(column)},
                attack="" if attack == "none" else attack,
                meta={key: row[key] for key in _META if row.get(key)},
            )
