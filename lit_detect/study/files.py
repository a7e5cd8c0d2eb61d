"""Sources of texts for studies: several files of records, and texts of another source without their layout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from lit_core.errors import UserError, check_at_least
from lit_core.files.paths import files_facts, resolve_data_path
from lit_detect.formats import TextSource
from lit_detect.formats.litshift import read_records
from lit_detect.language.normalize import normalize_text
from lit_detect.records import Record


class Files(TextSource):
    """Texts of several files of records, as ``lit-detect generate`` writes them.

    Args:
        paths: The .jsonl files, absolute, from the working directory, or below the data root.
    """

    name, licence = "files", "that of the texts"

    def __init__(self, paths: list[str]) -> None:
        self.paths = [resolve_data_path(path) for path in paths]
        self.origin = ", ".join(path.name for path in self.paths)

    def records(self) -> Iterator[Record]:
        """Yield the records file by file; see `TextSource.records`."""
        for path in self.paths:
            if not path.is_file():
                raise UserError(f"{path} is missing; make it with `lit-detect generate`, see docs/detect.md.")
            yield from read_records(path)

    def facts(self) -> dict[str, Any]:
        """Return names, sizes and times of the files."""
        return files_facts(self.paths)


class PlainTexts(TextSource):
    """Texts of another source with normalised Unicode and single blanks, perhaps only their first words.

    In published sets the layout often tells human from machine: Fast-DetectGPT's human texts have no line breaks, its
    machine texts nearly always do. Their detectors would learn that alone.

    Args:
        source: The source.
        words: Number of words to keep of each text, 1 or more; None keeps all.
    """

    def __init__(self, source: TextSource, words: int | None = None) -> None:
        check_at_least(1, words=words)
        self.source, self.words = source, words
        self.name, self.licence, self.origin = source.name, source.licence, source.origin

    def records(self) -> Iterator[Record]:
        """Yield the records of the source with plain texts; see `TextSource.records`."""
        for record in self.source.records():
            yield replace(record, text=" ".join(normalize_text(record.text).split()[: self.words]))

    def facts(self) -> dict[str, Any]:
        """Return the facts of the source, and the number of words."""
        return {**self.source.facts(), "words": self.words}
