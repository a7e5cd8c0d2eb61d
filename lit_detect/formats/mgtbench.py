"""The format of MGTBench (He et al. 2023, arXiv 2303.14822)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lit_core.errors import UserError
from lit_core.files.text_files import with_compressions
from lit_detect.formats.base import RowSource, Split, stem
from lit_detect.formats.reading import as_label, as_split, as_text, json_document
from lit_detect.records import HUMAN, HUMAN_SOURCE, Record


class MGTBench(RowSource):
    """A JSON document with ``train`` and ``test``, each with the lists ``text`` and ``label`` (0 human, 1 machine).

    A file is read at once. TextTable reads the tables of the successor IMGTB.

    Args:
        path: A .json, perhaps compressed, or a folder of them.
        name: Name of the source.
        generator: Name of the generator; None takes the file's name.
        domain: Domain of the texts, such as essays.
        split: Split of all texts; None keeps the splits of the file.
        licence: Licence of the texts, which is recorded.

    Raises:
        UserError: If the path does not exist.
    """

    suffixes = with_compressions(".json")

    def __init__(
        self,
        path: str,
        name: str = "mgtbench",
        generator: str | None = None,
        domain: str = "",
        split: Split | None = None,
        licence: str = "unknown",
    ) -> None:
        super().__init__([path], name, split, licence, generator=generator, domain=domain)
        self.generator, self.domain = generator, domain

    def rows(self, file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield place, id, split, text and label of each text of one file.

        Raises:
            UserError: If a list is missing, or the two lists differ in length.
        """
        for key, part in json_document(file).items():
            where = f"{file}, {key}"
            split = as_split(key, where)
            texts, labels = (_list(part, name, where) for name in ("text", "label"))
            if len(texts) != len(labels):
                raise UserError(
                    f"{where} has {len(texts)} texts but {len(labels)} labels. Give one label for each text."
                )
            for index, (text, label) in enumerate(zip(texts, labels, strict=True)):
                name = f"{stem(file)}-{key}-{index:07d}"
                yield f"{where}, text {index}", {"id": name, "split": split, "text": text, "label": label}

    def records_of_row(self, row: dict[str, Any], where: str, number: int, file: Path) -> Iterator[Record]:
        """Yield a text; see the base class."""
        label = as_label(row["label"], where)
        yield Record(
            id=row["id"],
            text=as_text(row["text"], where),
            label=label,
            split=row["split"],
            source=HUMAN_SOURCE if label == HUMAN else self.generator or stem(file),
            domain=self.domain,
        )


def _list(part: Any, name: str, where: str) -> list[Any]:
    if not isinstance(part, dict) or not isinstance(part.get(name), list):
        raise UserError(f"{where} has no list {name!r}. Give a file with text and label in train and test.")
    return part[name]
