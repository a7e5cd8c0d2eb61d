"""The format of CoCo (Liu et al., EMNLP 2023, arXiv 2212.10341)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lit_detect.formats.base import RowSource, Split, split_of_name, stem
from lit_detect.formats.reading import as_label, cell, text_cell
from lit_detect.records import HUMAN, HUMAN_SOURCE, Record


class CoCoJSONL(RowSource):
    """JSONL with ``article`` and ``label``; the entities in ``information`` are not read, since detectors extract them.

    Args:
        path: A .jsonl, perhaps compressed, or a folder of them, such as train and test.
        name: Name of the source.
        generator: Name of the generator of the machine texts.
        domain: Domain of the texts, such as news.
        split: Split of all texts; None takes that of the file's name, if it has one.
        licence: Licence of the texts, which is recorded.

    Raises:
        UserError: If the path does not exist.
    """

    def __init__(
        self,
        path: str,
        name: str = "coco",
        generator: str = "machine",
        domain: str = "",
        split: Split | None = None,
        licence: str = "unknown",
    ) -> None:
        super().__init__([path], name, split, licence, generator=generator, domain=domain)
        self.generator, self.domain = generator, domain

    def records_of_row(self, row: dict[str, Any], where: str, number: int, file: Path) -> Iterator[Record]:
        """Yield the text of a row; see the base class."""
        label = as_label(cell(row, "label", where), where)
        yield Record(
            id=f"{stem(file)}-{number:07d}",
            text=text_cell(row, "article", where),
            label=label,
            split=split_of_name(stem(file)),
            source=HUMAN_SOURCE if label == HUMAN else self.generator,
            domain=self.domain,
        )
