"""The format of GROVER's generated articles (Zellers et al., NeurIPS 2019, arXiv 1905.12616)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lit_core.errors import require
from lit_detect.formats.base import RowSource, Split, stem
from lit_detect.formats.reading import as_label, as_split, cell, name_cell, text_cell
from lit_detect.records import HUMAN, HUMAN_SOURCE, Record

_FILE_NAME = re.compile(r"generator=(?P<generator>[^~]{1,80})~dataset=p(?P<top_p>\d\.\d+)")
_META = ("id", "domain", "headline", "date", "authors")


class GroverJSONL(RowSource):
    """JSONL with ``article``, ``label``, ``split``, ``orig_split`` and ``ind30k``, the id of a pair of articles.

    Generator and top-p are read from a file name such as ``generator=mega~dataset=p0.94.jsonl``.

    Args:
        path: A .jsonl, perhaps compressed, or a folder of them.
        name: Name of the source.
        generator: Name of the generator; None takes that of the file's name, or grover.
        top_p: Probability mass of the nucleus sampling, above 0 to 1; None takes that of the file's name.
        burner: Whether to read human articles without a machine twin, which have the original split train_burner.
        split: Split of all texts; None keeps that of each article.
        licence: Licence of the texts, which is recorded.

    Raises:
        UserError: If the path does not exist.
    """

    def __init__(
        self,
        path: str,
        name: str = "grover",
        generator: str | None = None,
        top_p: float | None = None,
        burner: bool = False,
        split: Split | None = None,
        licence: str = "unknown",
    ) -> None:
        require(top_p is None or 0 < top_p <= 1, "top_p", top_p, "above 0 and at most 1, or null")
        super().__init__([path], name, split, licence, generator=generator, top_p=top_p, burner=burner)
        self.generator, self.top_p, self.burner = generator, top_p, burner

    def records_of_row(self, row: dict[str, Any], where: str, number: int, file: Path) -> Iterator[Record]:
        """Yield the article of a row; see the base class."""
        named = _FILE_NAME.search(file.name)
        generator = self.generator or (f"grover-{named['generator']}" if named else "grover")
        top_p = self.top_p or (float(named["top_p"]) if named else None)
        if not self.burner and "burner" in name_cell(row, "orig_split"):
            return
        label = as_label(cell(row, "label", where), where)
        pair = name_cell(row, "ind30k")
        yield Record(
            id=f"{stem(file)}-{number:07d}",
            text=text_cell(row, "article", where),
            label=label,
            split=as_split(row.get("split"), where),
            source=HUMAN_SOURCE if label == HUMAN else generator,
            domain="news",
            pair_id=pair,
            decoding={} if label == HUMAN or top_p is None else {"top_p": top_p},
            meta={("site" if key == "domain" else key): row[key] for key in _META if row.get(key) is not None},
        )
