"""A source of texts in several files of records."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lit_core.errors import UserError
from lit_core.files.paths import files_facts, resolve_data_path
from lit_detect.formats import TextSource
from lit_detect.formats.litshift import read_records
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
