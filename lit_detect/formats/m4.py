"""The format of M4 (Wang et al., EACL 2024, arXiv 2305.14902)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lit_detect.formats.base import RowSource, Split, stem
from lit_detect.formats.reading import name_cell, text_cell
from lit_detect.records import HUMAN, HUMAN_SOURCE, MACHINE, Record


class M4(RowSource):
    """JSONL of pairs with ``human_text`` and ``machine_text``, in files named ``<domain>_<model>.jsonl``.

    A human text that occurs in several files is read once, and forms a group with its twins of all models.

    Args:
        path: A .jsonl, perhaps compressed, or a folder of them.
        name: Name of the source.
        split: Split of all texts; None lets prepare divide them.
        licence: Licence of the texts, which is recorded.

    Raises:
        UserError: If the path does not exist.
    """

    def __init__(self, path: str, name: str = "m4", split: Split | None = None, licence: str = "unknown") -> None:
        super().__init__([path], name, split, licence)

    def records_of_row(self, row: dict[str, Any], where: str, number: int, file: Path) -> Iterator[Record]:
        """Yield the human and the machine text of a row; see the base class."""
        named_domain, _, named_model = stem(file).partition("_")
        domain = name_cell(row, "source", named_domain)
        model = name_cell(row, "model", named_model or "machine")
        pair = f"{domain}-{name_cell(row, 'source_ID', f'{stem(file)}-{number}')}"
        for key, label, source in (("human_text", HUMAN, HUMAN_SOURCE), ("machine_text", MACHINE, model)):
            yield Record(
                id=f"{stem(file)}-{number:07d}-{'human' if label == HUMAN else 'machine'}",
                text=text_cell(row, key, where),
                label=label,
                source=source,
                domain=domain,
                pair_id=pair,
                meta={"prompt": row["prompt"]} if row.get("prompt") and label == MACHINE else {},
            )
