"""What every source of texts is: named records with a licence and an origin."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any, Literal

from lit_core.corpora.described import Described
from lit_core.errors import UserError
from lit_core.files.paths import files_facts
from lit_detect.records import SPLITS, Record

Split = Literal["train", "val", "test"]

_SPLIT_NAMES = {"dev": "val", "valid": "val", "validation": "val"}


class TextSource(Described):
    """Texts of one origin.

    To add a format, derive from this class or from `FileSource`, export it from ``lit_detect.formats``, and write its
    YAML in ``configs/detect/prepare`` and its test.

    Attributes:
        name: Name of the source: its folder, and the middle of its metric keys.
        licence: Licence of the texts.
        origin: Where the texts come from.
    """

    @abstractmethod
    def records(self) -> Iterator[Record]:
        """Yield the records one by one, always in the same order.

        A record whose split is empty is given one by ``prepare``.

        Raises:
            UserError: If something is missing or malformed; one sentence says where, what, and the way out.
        """


class FileSource(TextSource):
    """Texts in files of one format.

    Args:
        paths: Files, or folders of such files.
        name: Name of the source.
        split: Split of all texts; None keeps what the files say.
        licence: Licence of the texts, for the record.
        arguments: What else the records depend on, for the record.

    Attributes:
        files: The files.
        suffixes: How the names of files in a folder end.

    Raises:
        UserError: If there is no such file, or a folder has none.
    """

    suffixes: tuple[str, ...] = (".jsonl", ".jsonl.gz")

    def __init__(self, paths: Sequence[str], name: str, split: Split | None, licence: str, **arguments: Any) -> None:
        self.name, self.split, self.licence, self.arguments = checked_name(name), split, licence, arguments
        found = [Path(path).expanduser() for path in paths]
        self.files = [file for path in found for file in files_of(path, self.suffixes, f"path of the source {name}")]
        self.origin = f"{', '.join(path.name for path in found)} as {type(self).__name__}"
        if split is not None and split not in SPLITS:
            raise UserError(f"split of the source {name} is {split}, but must be one of {', '.join(SPLITS)}.")

    def records(self) -> Iterator[Record]:
        """Yield the records of the files by name, in their order; see `TextSource.records`."""
        for file in self.files:
            for record in self.records_of(file):
                yield record if self.split is None else replace(record, split=self.split)

    @abstractmethod
    def records_of(self, file: Path) -> Iterator[Record]:
        """Yield the records of one file.

        Raises:
            UserError: If a line is malformed.
        """

    def facts(self) -> dict[str, Any]:
        """Return the arguments, and names, sizes and times of the files."""
        return {"split": self.split, **self.arguments, **files_facts(self.files)}


def files_of(path: Path, suffixes: tuple[str, ...], argument: str) -> list[Path]:
    """Return a file, or those of a folder whose names end as given, by name.

    Raises:
        UserError: If there is none.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"{argument} is {path}, but there is no such file or folder; correct the path.")
    files = sorted(file for file in path.iterdir() if file.is_file() and file.name.lower().endswith(suffixes))
    if not files:
        raise UserError(f"{argument} is {path}, a folder without files that end in {' or '.join(suffixes)}; fill it.")
    return files


def stem(file: Path) -> str:
    """Return a file's name without what it ends in, such as ``.jsonl.gz``; dots between digits stay."""
    name = file.name.removesuffix(".gz")
    return name.rpartition(".")[0] or name


def split_of_name(name: str) -> str:
    """Return the split that a file is named after, such as ``val`` of ``webtext.valid``; empty where there is none."""
    words = name.lower().replace("-", ".").replace("_", ".").split(".")
    found = {_SPLIT_NAMES.get(word, word) for word in words}.intersection(SPLITS)
    return found.pop() if len(found) == 1 else ""


def checked_name(name: str) -> str:
    """Return the name that a user gave to a source.

    Raises:
        UserError: If it cannot be the name of a folder.
    """
    if not name or PurePath(name).name != name or name.startswith(".") or "\\" in name:
        raise UserError(f"A source is named {name!r}, but a folder is named by it; use letters, digits, - and _.")
    return name
