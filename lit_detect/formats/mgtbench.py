"""The format of MGTBench (He et al. 2023, arXiv 2303.14822)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lit_core.errors import UserError
from lit_detect.formats.base import FileSource, Split, stem
from lit_detect.formats.reading import as_label, as_split, as_text, json_document
from lit_detect.records import HUMAN, HUMAN_SOURCE, Record


class MGTBench(FileSource):
    """A JSON document with ``train`` and ``test``, each with the lists ``text`` and ``label`` (0 human, 1 machine).

    A file is read at once. TextTable reads the tables of the successor IMGTB.

    Args:
        path: A file that ends in .json or .json.gz, or a folder of them.
        name: Name of the source.
        generator: Name of the generator; None takes the file's name.
        domain: Domain of the texts, such as essays.
        split: Split of all texts; None keeps the splits of the file.
        licence: Licence of the texts, which is recorded.

    Raises:
        UserError: If the path does not exist.
    """

    suffixes = (".json", ".json.gz")

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

    def records_of(self, file: Path) -> Iterator[Record]:
        """Yield the texts of one file.

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
            for index, (text, given) in enumerate(zip(texts, labels, strict=True)):
                where_text = f"{where}, text {index}"
                label = as_label(given, where_text)
                yield Record(
                    id=f"{stem(file)}-{key}-{index:07d}",
                    text=as_text(text, where_text),
                    label=label,
                    split=split,
                    source=HUMAN_SOURCE if label == HUMAN else self.generator or stem(file),
                    domain=self.domain,
                )


def _list(part: Any, name: str, where: str) -> list[Any]:
    if not isinstance(part, dict) or not isinstance(part.get(name), list):
        raise UserError(f"{where} has no list {name!r}. Give a file with text and label in train and test.")
    return part[name]
