"""Base classes of text sources, and helpers for names of files and sources."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any, Literal

from lit_core.corpora.described import Described
from lit_core.errors import UserError
from lit_core.files.bad_rows import STOP, BadRows
from lit_core.files.listing import listed
from lit_core.files.paths import data_root, files_facts, says_where
from lit_core.files.text_files import COMPRESSIONS, with_compressions
from lit_detect.formats.reading import is_on_hub, rows_of
from lit_detect.records import SPLITS, Record

Split = Literal["train", "val", "test"]

_SPLIT_NAMES = {"dev": "val", "valid": "val", "validation": "val"}


class TextSource(Described):
    """Base class of sources of texts: records with a name, a licence and an origin.

    To add a format, derive from this class, from `FileSource` or from `RowSource`, export it from
    ``lit_detect.formats``, and write its YAML in ``configs/detect/prepare`` and its test.

    Attributes:
        name: Name of the source, which is its folder and a part of its metric keys.
        licence: Licence of the texts.
        origin: Where the texts come from.
        bad: What becomes of rows that cannot be read; ``prepare`` sets it.
    """

    bad: BadRows = STOP

    @abstractmethod
    def records(self) -> Iterator[Record]:
        """Yield the records, always in the same order; ``prepare`` assigns a split to records without one.

        Raises:
            UserError: If a file is missing or malformed; the message gives file and line.
        """


class FileSource(TextSource):
    """Base class of sources that read files of one format.

    Args:
        paths: Files, or folders of such files; of a `RowSource` also data sets such as ``hf:NAME:SPLIT``.
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

    suffixes: tuple[str, ...] = with_compressions(".jsonl")

    def __init__(self, paths: Sequence[str], name: str, split: Split | None, licence: str, **arguments: Any) -> None:
        self.name, self.split, self.licence, self.arguments = checked_name(name), split, licence, arguments
        given = [located(path) for path in paths]
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
        sets = [str(file) for file in self.files if is_on_hub(file)]
        facts = files_facts(file for file in self.files if not is_on_hub(file))
        return {"split": self.split, **self.arguments, **facts, **({"data_sets": sets} if sets else {})}


class RowSource(FileSource):
    """Base class of sources whose files have rows, as JSONL, CSV, TSV or Parquet, each with one or more texts.

    Attributes:
        kind: End of the names of files of its own format, as which a file with another name is read.
    """

    kind = ".jsonl"

    def records_of(self, file: Path) -> Iterator[Record]:
        """Yield the records of the rows of one file.

        Raises:
            UserError: If a row is malformed and that ends the command.
        """
        for number, (where, row) in enumerate(self.rows(file), 1):
            try:
                records = list(self.records_of_row(row, where, number, file))
            except UserError as error:
                self.bad.add(where, error)
            else:
                yield from records

    def rows(self, file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield file and line, and the cells by column, of each row of one file.

        Raises:
            UserError: If a row is malformed and that ends the command.
        """
        return rows_of(file, self.kind, self.columns(file), self.bad)

    def columns(self, file: Path) -> list[str] | None:
        """Return the columns that are needed of a Parquet file; None for all."""
        return None

    @abstractmethod
    def records_of_row(self, row: dict[str, Any], where: str, number: int, file: Path) -> Iterator[Record]:
        """Yield the records of a row.

        Args:
            row: The cells by column or key.
            where: File and line, for messages.
            number: Number of the row in the file, from 1.
            file: The file.

        Raises:
            UserError: If the row is malformed.
        """


def located(path: str) -> Path:
    """Return what a path names: a data set as it is, otherwise a file or folder, which may lie below the data root."""
    if is_on_hub(Path(path)):
        return Path(path)
    found = Path(path).expanduser()
    below = data_root() / found
    return below if not says_where(path) and not found.exists() and below.exists() else found


def files_of(path: Path, suffixes: tuple[str, ...], argument: str) -> list[Path]:
    """Return the file, or the files of a folder that have one of the suffixes, sorted by name.

    Args:
        path: A file or a folder.
        suffixes: Suffixes of the files to take from a folder.
        argument: Name of the argument in the error message.

    Raises:
        UserError: If the path does not exist, or the folder has no such file.
    """
    if path.is_file() or is_on_hub(path):
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
    name = file.name.removesuffix(file.suffix if file.suffix.lower() in COMPRESSIONS else "")
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
