"""The format of HC3 (Guo et al. 2023, arXiv 2301.07597)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lit_core.errors import UserError
from lit_detect.formats.base import RowSource, Split, stem
from lit_detect.formats.reading import as_text, cell, name_cell, text_cell
from lit_detect.records import HUMAN, HUMAN_SOURCE, MACHINE, Record

_ANSWERS = (("human_answers", HUMAN, HUMAN_SOURCE), ("chatgpt_answers", MACHINE, "chatgpt"))


class HC3(RowSource):
    """JSONL of questions with the lists ``human_answers`` and ``chatgpt_answers``; each answer is a text.

    The answers to a question are a group. Lists may be empty, and blank answers are left out. Name the source after the
    variant of the file: raw, or filtered, without words that reveal the class.

    Args:
        path: A .jsonl, perhaps compressed, such as all.jsonl, or a folder of them.
        name: Name of the source, such as hc3_filtered.
        split: Split of all texts; None lets prepare divide them.
        licence: Licence of the texts, which is recorded.

    Raises:
        UserError: If the path does not exist.
    """

    def __init__(self, path: str, name: str = "hc3", split: Split | None = None, licence: str = "CC-BY-SA-4.0") -> None:
        super().__init__([path], name, split, licence)

    def records_of_row(self, row: dict[str, Any], where: str, number: int, file: Path) -> Iterator[Record]:
        """Yield the answers of a row; see the base class."""
        question = text_cell(row, "question", where)
        pair = hashlib.blake2b(question.encode(), digest_size=8).hexdigest()
        for key, label, source in _ANSWERS:
            answers = cell(row, key, where)
            if not isinstance(answers, list):
                raise UserError(f"{where}, {key} is a {type(answers).__name__}, but must be a list. Fix the line.")
            for index, answer in enumerate(answers):
                text = as_text(answer, f"{where}, {key}")
                if text.strip():
                    yield Record(
                        id=f"{stem(file)}-{number:07d}-{source}-{index}",
                        text=text,
                        label=label,
                        source=source,
                        domain=name_cell(row, "source", stem(file)),
                        pair_id=pair,
                        meta={"question": question},
                    )
