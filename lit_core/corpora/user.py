"""Corpora of the user's own text: folders of files, JSON lines, Hugging Face datasets."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from glob import glob
from pathlib import Path
from typing import IO, Any

from lit_core.corpora.base import Corpus, Document
from lit_core.errors import UserError, check_at_least, did_you_mean
from lit_core.fetch.hub import HUB_ARGUMENTS, load_rows, need_datasets
from lit_core.files.json_files import json_lines
from lit_core.files.listing import listed
from lit_core.files.paths import files_facts
from lit_core.files.text_files import LARGEST, opened, read_whole


class TextFolder(Corpus):
    """Text files of a folder and its subfolders; a document is a file, or the text between separator lines.

    Files that end in ``.gz`` or ``.xz`` are decompressed.

    Args:
        folder: The folder.
        name: Name of the source made of it.
        pattern: Glob pattern of the files, relative to the folder; ** matches any subfolders.
        separator: A line that divides a file into documents, such as <|endoftext|>; None takes each file whole.
        encoding: Encoding of the files.
        licence: Licence of the text, for the record.
        language: Language of the text, for the record.

    Raises:
        UserError: If there is no such folder.
    """

    def __init__(
        self,
        folder: str,
        name: str,
        pattern: str = "**/*.txt",
        separator: str | None = None,
        encoding: str = "utf-8",
        licence: str = "unknown",
        language: str = "unknown",
    ) -> None:
        self.folder = Path(folder).expanduser()
        if not self.folder.is_dir():
            raise UserError(f"folder of the corpus {name} is {folder}, but there is no such folder; correct the path.")
        self.name, self.licence, self.language = name, licence, language
        self.origin = f"{folder}/{pattern}"
        self.pattern, self.separator, self.encoding = pattern, separator, encoding

    def documents(self) -> Iterator[Document]:
        """Yield the documents in the order of the files' names.

        Raises:
            UserError: If a file is not in the encoding.
        """
        for path in self._files():
            file_id = path.relative_to(self.folder).as_posix()
            try:
                if self.separator is None:
                    yield Document(file_id, read_whole(path).decode(self.encoding))
                    continue
                with opened(path) as content, io.TextIOWrapper(content, self.encoding, newline="") as file:
                    # newline="": line breaks are not converted, so that a text has the size of its file
                    for number, text in enumerate(_between(file, self.separator, path)):
                        yield Document(f"{file_id}#{number}", text, group=file_id)
            except (UnicodeDecodeError, LookupError) as error:
                raise UserError(
                    f"{path} is not in the encoding {self.encoding} ({error}); give the right one."
                ) from error

    def facts(self) -> dict[str, Any]:
        """Return the arguments, and names, sizes and times of the files."""
        return {
            "separator": self.separator,
            "encoding": self.encoding,
            **files_facts(self._files()),
        }

    def _files(self) -> list[Path]:
        return [path for path in listed(self.folder, self.pattern) if path.is_file()]


class JSONLines(Corpus):
    """Files with a JSON object per line; a document is a line.

    Files that end in ``.gz`` or ``.xz`` are decompressed.

    Args:
        path: A file, or a glob pattern such as data/*.jsonl.
        name: Name of the source made of it.
        field: Field that holds the text.
        licence: Licence of the text, for the record.
        language: Language of the text, for the record.

    Raises:
        UserError: If there is no such file.
    """

    def __init__(
        self,
        path: str,
        name: str,
        field: str = "text",
        licence: str = "unknown",
        language: str = "unknown",
    ) -> None:
        self.name, self.licence, self.language, self.origin = name, licence, language, path
        self.field = field
        self.files = sorted(Path(match) for match in glob(str(Path(path).expanduser()), recursive=True))
        if not self.files:
            raise UserError(f"path of the corpus {name} is {path}, but there is no such file; correct the path.")

    def documents(self) -> Iterator[Document]:
        """Yield the lines in order.

        Raises:
            UserError: If a line is not a JSON object with the field; the message names file and line.
        """
        common = os.path.commonpath([path.parent for path in self.files])
        for path in self.files:
            file_id = path.relative_to(common).as_posix()
            for where, row in json_lines(path):
                yield Document(f"{file_id}:{where.rpartition(' ')[2]}", _field(row, self.field, where))

    def facts(self) -> dict[str, Any]:
        """Return the field, and names, sizes and times of the files."""
        return {"field": self.field, **files_facts(self.files)}


class HuggingFaceDataset(Corpus):
    """A dataset of the Hugging Face hub, or local files of any kind that `datasets` reads; a document is a row.

    Args:
        path: Name on the hub, or csv, json, parquet, text and so on together with data_files.
        name: Name of the source made of it.
        subset: Configuration of the dataset; None takes the only one.
        split: Split to read; ``prepare`` splits it again, so that all sources are split by one rule.
        field: Column that holds the text.
        streaming: Whether rows are read from the hub when they are needed, without a copy of the dataset on disk.
        max_documents: Maximum number of rows to read, from the beginning; None reads all.
        revision: Commit or tag on the hub; None takes the newest.
        data_files: Local files or patterns for the kinds that need them.
        licence: Licence of the text, for the record.
        language: Language of the text, for the record.

    Raises:
        UserError: If `datasets` is not installed, or max_documents is below 1.
    """

    def __init__(
        self,
        path: str,
        name: str,
        subset: str | None = None,
        split: str = "train",
        field: str = "text",
        streaming: bool = False,
        max_documents: int | None = None,
        revision: str | None = None,
        data_files: list[str] | None = None,
        licence: str = "unknown",
        language: str = "unknown",
    ) -> None:
        need_datasets("HuggingFaceDataset")
        check_at_least(1, **{f"max_documents of the corpus {name}": max_documents})
        self.name, self.licence, self.language = name, licence, language
        self.origin = " ".join([path, *([subset] if subset else []), *(data_files or []), split])
        self.arguments: dict[str, Any] = {
            "path": path,
            "subset": subset,
            "split": split,
            "field": field,
            "streaming": streaming,
            "max_documents": max_documents,
            "revision": revision,
            "data_files": data_files,
        }

    def documents(self) -> Iterator[Document]:
        """Yield the rows in order.

        Raises:
            UserError: If the dataset cannot be loaded, or a row has no such column.
        """
        for number, row in enumerate(self._rows()):
            if number == self.arguments["max_documents"]:
                return
            yield Document(str(number), _field(row, self.arguments["field"], f"{self.origin}, row {number}"))

    def facts(self) -> dict[str, Any]:
        """Return the arguments, and names, sizes and times of local files."""
        patterns = self.arguments["data_files"] or []
        local = sorted({Path(file) for pattern in patterns for file in glob(pattern, recursive=True)})
        return {**self.arguments, **files_facts(local)}

    def _rows(self) -> Iterable[dict[str, Any]]:
        given = self.arguments
        remedy = "correct path, subset or split, or use TextFolder or JSONLines for files you have"
        return load_rows(self.name, remedy, **{key: given[key] for key in HUB_ARGUMENTS})


def _field(row: dict[str, Any], field: str, where: str) -> str:
    if field not in row:
        hint = did_you_mean(field, row)
        raise UserError(f"{where}: there is no field {field} among {', '.join(map(str, row))}; set `field`.{hint}")
    if not isinstance(row[field], str):
        raise UserError(f"{where}: the field {field} is a {type(row[field]).__name__}, but must be text; set `field`.")
    return row[field]


def _between(file: IO[str], separator: str, path: Path) -> Iterator[str]:
    """Yield the texts between separator lines, with one document in memory at a time."""
    document: list[str] = []
    size = 0
    while line := file.readline(LARGEST):
        if line.strip() == separator.strip():
            if document:
                yield "".join(document)
            document, size = [], 0
        else:
            document.append(line)
            size += len(line)
            if size > LARGEST:
                raise UserError(
                    f"{path} holds a document of more than {LARGEST >> 20} MiB; put lines {separator!r} into it, or "
                    "restore it."
                )
    if document:
        yield "".join(document)
