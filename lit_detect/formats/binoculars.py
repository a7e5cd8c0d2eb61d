"""The format of Binoculars (Hans et al., ICML 2024, arXiv 2401.12070)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lit_core.errors import UserError
from lit_detect.formats.base import RowSource, Split, stem
from lit_detect.formats.reading import text_cell
from lit_detect.records import HUMAN, HUMAN_SOURCE, MACHINE, Record

_MARK = "generated_text"


class BinocularsJSONL(RowSource):
    """JSONL of pairs: a human text under ``article`` or ``text``, machine texts under keys with ``generated_text``.

    Args:
        path: A .jsonl, perhaps compressed, such as cc_news-llama2_13.jsonl, or a folder of them.
        name: Name of the source.
        human_key: Key of the human text; None takes article, or else text.
        machine_key: Key of the machine text; None takes the last of a line's keys with generated_text.
        split: Split of all texts; None lets prepare divide them.
        licence: Licence of the texts, which is recorded.

    Raises:
        UserError: If the path does not exist.
    """

    def __init__(
        self,
        path: str,
        name: str = "binoculars",
        human_key: str | None = None,
        machine_key: str | None = None,
        split: Split | None = None,
        licence: str = "unknown",
    ) -> None:
        super().__init__([path], name, split, licence, human_key=human_key, machine_key=machine_key)
        self.human_keys = (human_key,) if human_key else ("article", "text")
        self.machine_key = machine_key

    def records_of_row(self, row: dict[str, Any], where: str, number: int, file: Path) -> Iterator[Record]:
        """Yield the human text and the machine text of a row; see the base class."""
        key = self.machine_key or next((key for key in reversed(row) if _MARK in key), None)
        if key is None:
            raise UserError(f"{where} has no key with {_MARK}. Name the key of the machine text in machine_key.")
        generator = key.partition(f"_{_MARK}")[0]
        for keys, label, source in ((self.human_keys, HUMAN, HUMAN_SOURCE), ((key,), MACHINE, generator)):
            yield Record(
                id=f"{stem(file)}-{number:07d}-{'human' if label == HUMAN else 'machine'}",
                text=text_cell(row, keys, where),
                label=label,
                source=source,
                domain=stem(file).partition("-")[0],
                pair_id=f"{stem(file)}-{number:07d}",
            )
