"""The format of OpenAI's GPT-2 output dataset (Solaiman et al. 2019, arXiv 1908.09203)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lit_core.errors import UserError, did_you_mean
from lit_detect.formats.base import RowSource, Split, split_of_name, stem
from lit_detect.formats.reading import name_cell, text_cell
from lit_detect.records import HUMAN, HUMAN_SOURCE, MACHINE, Record

_HUMAN_FILES = "webtext"


class GPT2OutputDataset(RowSource):
    """A folder of files ``<source>.<split>.jsonl`` with ``text``, human in ``webtext`` and by GPT-2 in all others.

    The suffix of a generator's name gives the decoding: ``-k40`` is top-k sampling with 40, ``-nucleus`` is nucleus
    sampling, and no suffix is pure sampling.

    Args:
        path: Folder with files such as webtext.train.jsonl and xl-1542M-k40.train.jsonl.
        name: Name of the source.
        generators: Names of the generators to read, such as xl-1542M-k40; None reads all of the folder.
        split: Split of all texts; None takes that of the file's name.
        licence: Licence of the texts, which is recorded.

    Raises:
        UserError: If the folder does not exist, or one of its files is named otherwise.
    """

    def __init__(
        self,
        path: str,
        name: str = "gpt2_output",
        generators: list[str] | None = None,
        split: Split | None = None,
        licence: str = "MIT, the collection",
    ) -> None:
        super().__init__([path], name, split, licence, generators=generators)
        sources = {file: stem(file).rpartition(".")[0] for file in self.files}
        for file, source in sources.items():
            if not source or not split_of_name(stem(file)):
                raise UserError(
                    f"{file} is not named <source>.<split>.jsonl, which gives its label. Rename it or move it away."
                )
        for generator in generators or ():
            if generator not in sources.values():
                hint = did_you_mean(generator, sources.values())
                raise UserError(f"generators of the source {name} has {generator}, which has no file in {path}.{hint}")
        selected = None if generators is None else {_HUMAN_FILES, *generators}
        self.files = [file for file in self.files if selected is None or sources[file] in selected]

    def records_of_row(self, row: dict[str, Any], where: str, number: int, file: Path) -> Iterator[Record]:
        """Yield the text of a row; see the base class."""
        source = stem(file).rpartition(".")[0]
        is_human = source == _HUMAN_FILES
        decoding: dict[str, Any] = {} if is_human else {"temperature": 1.0}
        if source.endswith("-k40"):
            decoding["top_k"] = 40
        elif source.endswith("-nucleus"):
            decoding["strategy"] = "nucleus"  # the data set does not say with which p
        yield Record(
            id=f"{stem(file)}-{number:07d}",
            text=text_cell(row, "text", where),
            label=HUMAN if is_human else MACHINE,
            split=split_of_name(stem(file)),
            source=HUMAN_SOURCE if is_human else source,
            domain="web",
            decoding=decoding,
            meta={"id": name_cell(row, "id")},
        )
