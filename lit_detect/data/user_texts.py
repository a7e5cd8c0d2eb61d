"""The one reader of users' texts: every command opens the files and folders that it is given by `open_texts`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from lit_core.errors import UserError
from lit_core.files.paths import data_root, resolve_data_path
from lit_core.files.working_folder import RECORD
from lit_core.record import note_input
from lit_core.screen import say
from lit_detect.data.indexed_texts import IndexedTexts, PreparedTexts, TextFolder, text_files
from lit_detect.data.row_files import JSONLines, RowFile, Table, TextLines

_ROW_FILES: Mapping[str, type[RowFile]] = {".csv": Table, ".tsv": Table, ".jsonl": JSONLines, ".txt": TextLines}
_FILES = {f"{ending}{gz}": reader for gz in (".gz", "") for ending, reader in _ROW_FILES.items()}
#: The reader of each format; files are named by the end of their names.
FORMATS: Mapping[str, type[IndexedTexts]] = {
    **_FILES,
    "folder of .txt": TextFolder,
    "prepared split": PreparedTexts,
    "prepared source": PreparedTexts,
    "prepared root": PreparedTexts,
}


def open_texts(
    path: str | Path,
    argument: str,
    text_column: str = "text",
    group_column: str | None = None,
    transform: Callable[[str], str] | None = None,
    split: str = "test",
) -> IndexedTexts:
    """Open a file or folder of texts, to read them by index with their labels where there are any, and say how many.

    These are read, files also with ``.gz``:

    - .csv and .tsv with a line of column names,
    - .jsonl, of records as ``lit-detect generate`` and ``attack`` write them or of objects with other keys,
    - .txt with a text per line,
    - a folder of .txt files, each a text,
    - a folder that ``lit-detect prepare`` wrote: a split, a source or a root.

    A column or key ``label`` says human or machine, or 0 or 1. Other fields of a record, such as ``id`` and ``domain``,
    are read from the columns or keys of their names.

    Args:
        path: The file or folder; absolute, from the working directory, or below the data root.
        argument: Name of the argument that names it, for messages.
        text_column: Column or key of the text in a table or JSONL.
        group_column: Column, key or condition that groups the texts; None for no groups.
        transform: Applied to the text of a sample; None leaves it as it was found.
        split: Split that is taken of a prepared source or root.

    Raises:
        UserError: If there is no such file, its format is unknown, it has no texts, or a row is malformed.
    """
    from lightning.fabric.utilities.rank_zero import rank_zero_only

    if not str(path):
        raise UserError(f"{argument} is empty; name a file or folder of texts.")
    location = resolve_data_path(path)
    if not location.exists():
        raise UserError(
            f"{argument} is {path}, but there is no such file or folder, nor below {data_root()}; correct the path."
        )
    name = _format(location, argument)
    if not name.startswith("prepared"):  # whose shards are noted
        note_input(location)
    if location.is_dir():
        if name.startswith("prepared"):
            texts: IndexedTexts = PreparedTexts(_splits(location, name, split, argument), group_column, transform)
        else:
            _refuse_groups(location, group_column)
            texts = TextFolder(location, transform)
    else:
        reader = _FILES[name]
        if reader is TextLines:
            _refuse_groups(location, group_column)
        texts = reader(location, text_column, group_column, transform)
    if not len(texts):
        raise UserError(f"{argument} is {path}, which has no texts; give a file or folder with some.")
    count, blank = len(texts), texts.blank
    why = ", since they are blank" if blank else ""
    rank_zero_only(say)(f"{path}: {count + blank:,} rows read, {count:,} kept, {blank:,} set aside{why}.")
    return texts


def _format(path: Path, argument: str) -> str:
    """Return the key of `FORMATS` that a file or folder is of."""
    files = f"a file that ends in {', '.join(_ROW_FILES)} (or .gz)"
    if path.is_dir():
        if (path / "index.json").is_file():
            return "prepared split"
        if (path / RECORD).is_file():
            return "prepared source"
        if any(path.glob(f"*/{RECORD}")):
            return "prepared root"
        if text_files(path):
            return "folder of .txt"
        raise UserError(
            f"{argument} is {path}, a folder with neither .txt files nor texts that lit-detect prepare wrote; give "
            f"such a folder or {files}."
        )
    for ending in _FILES:
        if path.name.lower().endswith(ending):
            return ending
    raise UserError(f"{argument} is {path}, but must be {files} or a folder; convert it.")


def _splits(path: Path, name: str, split: str, argument: str) -> list[Path]:
    """Return the folders of a split in a prepared folder."""
    if name == "prepared split":
        return [path]
    sources = [path] if name == "prepared source" else [record.parent for record in sorted(path.glob(f"*/{RECORD}"))]
    folders = [source / split for source in sources if (source / split / "index.json").is_file()]
    if not folders:
        raise UserError(f"{argument} is {path}, which has no {split} split; name the folder of another split.")
    return folders


def _refuse_groups(path: Path, group_column: str | None) -> None:
    if group_column is not None:
        raise UserError(
            f"The texts are to be grouped by {group_column}, but {path} has no columns; give a table or JSONL."
        )
