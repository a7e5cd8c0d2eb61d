"""Base classes of text sources, and helpers for names of files and sources."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any, Literal

from lit_core.corpora.described import Described
from lit_core.errors import UserError
from lit_core.files.listing import listed
from lit_core.files.paths import files_facts
from lit_detect.records import SPLITS, Record

Split = Literal["train", "val", "test"]

_SPLIT_NAMES = {"dev": "val", "valid": "val", "validation": "val"}


class TextSource(Described):
    """Base class of sources of texts: records with a name, a licence and an origin.

    To add a format, derive from this class or from `FileSource`, export it from ``lit_detect.formats``, and write its
    YAML in ``configs/detect/prepare`` and its test.

    Attributes:
        name: Name of the source, which is its folder and a part of its metric keys.
        licence: Licence of the texts.
        origin: Where the texts come from.
    """

    @abstractmethod
    def records(self) -> Iterator[Record]:
        """Yield the records, always in the same order; ``prepare`` assigns a split to records without one.

        Raises:
            UserError: If a file is missing or malformed; the message gives file and line.
        """


class FileSource(TextSource):
    """Base class of sources that read files of one format.

    Args:
        paths: Files, or folders of such files.
        name: Name of the source.
        split: Split of all texts; None takes the splits of the files.
        licence: Licence of the texts, which is recorded.
        arguments: Further arguments that the records depend on, which are recorded.

    Attributes:
        files: The files.
        suffixes: Suffixes of the files that are read from a folder.

    Raises:
        UserError: If a path does not exist, or a folder has no such file.
    """

    suffixes: tuple[str, ...] = (".jsonl", ".jsonl.gz")

    def __init__(self, paths: Sequence[str], name: str, split: Split | None, licence: str, **arguments: Any) -> None:
        self.name, self.split, self.licence, self.arguments = checked_name(name), split, licence, arguments
        given = [Path(path).expanduser() for path in paths]
        self.files = [file for path in given for file in files_of(path, self.suffixes, f"path of the source {name}")]
        self.origin = f"{', '.join(path.name for path in given)} as {type(self).__name__}"
        if split is not None and split not in SPLITS:
            raise UserError(f"split of the source {name} is {split}, but must be {' or '.join(SPLITS)}. Correct it.")

    def records(self) -> Iterator[Record]:
        """Yield the records of all files, sorted by file name; see `TextSource.records`."""
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
        """Return the arguments, and names, sizes and modification times of the files."""
        return {"split": self.split, **self.arguments, **files_facts(self.files)}


def files_of(path: Path, suffixes: tuple[str, ...], argument: str) -> list[Path]:
    """Return the file, or the files of a folder that have one of the suffixes, sorted by name.

    Args:
        path: A file or a folder.
        suffixes: Suffixes of the files to take from a folder.
        argument: Name of the argument in the error message.

    Raises:
        UserError: If the path does not exist, or the folder has no such file.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"{argument} is {path}, but there is no such file or folder. Correct the path.")
    files = [file for file in listed(path) if file.is_file() and file.name.lower().endswith(suffixes)]
    if not files:
        raise UserError(
            f"{argument} is {path}, a folder without files that end in {' or '.join(suffixes)}. Give another folder."
        )
    return files


def stem(file: Path) -> str:
    """Return a file's name without its suffix, such as ``.jsonl`` or ``.jsonl.gz``."""
    name = file.name.removesuffix(".gz")
    return name.rpartition(".")[0] or name


def split_of_name(name: str) -> str:
    """Return the split in a file's name, such as ``val`` for ``webtext.valid``; empty if there is none or several."""
    words = name.lower().replace("-", ".").replace("_", ".").split(".")
    splits = {_SPLIT_NAMES.get(word, word) for word in words}.intersection(SPLITS)
    return splits.pop() if len(splits) == 1 else ""


def checked_name(name: str) -> str:
    """Return the name of a source if a folder can have that name.

    Raises:
        UserError: If it cannot.
    """
    if not name or PurePath(name).name != name or name.startswith(".") or "\\" in name:
        raise UserError(f"A source is named {name!r}, which cannot name its folder. Use letters, digits, - and _.")
    return name
