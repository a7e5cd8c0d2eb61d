"""The format of Pu et al. (IEEE S&P 2023, arXiv 2210.09421)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lit_detect.formats.base import RowSource, Split, split_of_name, stem
from lit_detect.formats.reading import as_label, cell, name_cell, text_cell
from lit_detect.records import HUMAN, HUMAN_SOURCE, Record


class PuJSONL(RowSource):
    """JSONL with ``id``, ``text`` (or ``article``) and ``label``, human or machine, the input of BERT and GLTR.

    The authors' four sets from the wild have this format. The name of each file gives the generator, or the split for a
    name such as ``train.jsonl``.

    Args:
        path: A .jsonl, perhaps compressed, or a folder of them.
        name: Name of the source.
        generator: Name of the generator; None takes the file's name, or the source's name if the file's is a split.
        domain: Domain of the texts, such as news.
        split: Split of all texts; None takes that of the file's name, if it has one.
        licence: Licence of the texts, which is recorded.

    Raises:
        UserError: If the path does not exist.
    """

    def __init__(
        self,
        path: str,
        name: str,
        generator: str | None = None,
        domain: str = "",
        split: Split | None = None,
        licence: str = "on request from the authors",
    ) -> None:
        super().__init__([path], name, split, licence, generator=generator, domain=domain)
        self.generator, self.domain = generator, domain

    def records_of_row(self, row: dict[str, Any], where: str, number: int, file: Path) -> Iterator[Record]:
        """Yield the text of a row; see the base class."""
        split = split_of_name(stem(file))
        generator = self.generator or (self.name if split else stem(file))
        label = as_label(cell(row, "label", where), where)
        yield Record(
            id=f"{stem(file)}-{number:07d}",
            text=text_cell(row, ("text", "article"), where),
            label=label,
            split=split,
            source=HUMAN_SOURCE if label == HUMAN else generator,
            domain=self.domain,
            meta={"id": name_cell(row, "id")},
        )
