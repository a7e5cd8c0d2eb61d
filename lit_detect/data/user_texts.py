"""The one reader of users' texts: every command opens the files and folders that it is given by `open_texts`."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from lit_core.errors import UserError
from lit_core.fetch.hub import HUB
from lit_core.files.bad_rows import STOP, BadRows
from lit_core.files.documents import DOCUMENTS
from lit_core.files.paths import data_root, resolve_data_path
from lit_core.files.text_files import COMPRESSIONS
from lit_core.files.working_folder import RECORD
from lit_core.record import note_input
from lit_core.screen import say
from lit_detect.data.documents import Documents, document_files
from lit_detect.data.indexed_texts import IndexedTexts, PreparedTexts, SeveralTexts
from lit_detect.data.row_files import JSONLines, RowFile, Table, TextLines
from lit_detect.data.stored_rows import HubTexts, ParquetTexts

_ROW_FILES: Mapping[str, type[RowFile]] = {".csv": Table, ".tsv": Table, ".jsonl": JSONLines, ".txt": TextLines}
_TABLES: Mapping[str, type[RowFile] | type[ParquetTexts]] = {
    **{f"{ending}{packed}": reader for packed in (*COMPRESSIONS, "") for ending, reader in _ROW_FILES.items()},
    ".parquet": ParquetTexts,
}
#: The reader of each format; files are named by the end of their names.
FORMATS: Mapping[str, type[IndexedTexts]] = {
    **_TABLES,
    **{ending: Documents for ending in DOCUMENTS if ending not in _TABLES},
    "folder of documents": Documents,
    "Hugging Face": HubTexts,
    "prepared split": PreparedTexts,
    "prepared source": PreparedTexts,
    "prepared root": PreparedTexts,
}
#: What names texts: a file, folder, pattern or dataset, or several of these.
Texts = str | Path | Sequence[str | Path]


def open_texts(
    path: Texts,
    argument: str,
    text_column: str = "text",
    group_column: str | None = None,
    transform: Callable[[str], str] | None = None,
    split: str = "test",
    bad: BadRows = STOP,
) -> IndexedTexts:
    """Open files and folders of texts, to read them by index with their labels where there are any, and say how many.

    These are read, files of rows also with ``.gz``, ``.zst`` or ``.xz``:

    - .csv and .tsv with a line of column names,
    - .jsonl, of records as ``lit-detect generate`` and ``attack`` write them or of objects with other keys,
    - .parquet,
    - .txt with a text per line,
    - .docx and .pdf, each a text, and a folder of .txt, .docx and .pdf, each a text,
    - ``hf:NAME:SPLIT`` or ``hf:NAME:SUBSET:SPLIT``, a dataset of the Hugging Face hub or a folder of its kind,
    - a folder that ``lit-detect prepare`` wrote: a split, a source or a root.

    A column or key ``label`` says human or machine, or 0 or 1. Other fields of a record, such as ``id`` and ``domain``,
    are read from the columns or keys of their names.

    Args:
        path: A file or folder: absolute, from the working directory, or below the data root; a pattern of files such as
            ``essays/*.csv``; a dataset; or a list of these.
        argument: Name of the argument that names it, for messages.
        text_column: Column or key of the text in rows.
        group_column: Column, key or condition that groups the texts; None for no groups.
        transform: Applied to the text of a sample; None leaves it as it was found.
        split: Split that is taken of a prepared source or root.
        bad: What becomes of malformed rows, and of files that cannot be read.

    Raises:
        UserError: If there is no such file, its format is unknown, it has no texts, or a row is malformed and that ends
            the command.
    """
    from lightning.fabric.utilities.rank_zero import rank_zero_only

    given, shown = listed_texts(path), named_texts(path)
    if not given:
        raise UserError(f"{argument} is an empty list; name a file or folder of texts.")
    places = [place for name in given for place in _places(name, argument)]
    for place, times in Counter(map(Path.resolve, places)).items():
        if times > 1:
            raise UserError(f"{argument} names {place} twice, so its texts would count twice; name it once.")
    before, parts = len(bad.rows), []
    for place in places:
        opening = _opening(place, argument, text_column, group_column, transform, split, bad)
        try:
            parts.append(opening())
        except UserError as error:
            bad.add(str(place), error)
    blank, aside = sum(part.blank for part in parts), len(bad.rows) - before
    parts = [part for part in parts if len(part)]
    if not parts:
        why = f" that can be read: {bad.rows[before].reason}" if aside else "; give a file or folder with some."
        raise UserError(f"{argument} is {shown}, which has no texts{why}")
    _tell_apart(parts)
    texts = parts[0] if len(parts) == 1 else SeveralTexts(parts)
    rank_zero_only(say)(f"{shown}: {_counts(len(texts), blank, aside)}")
    if loose := [part for part in parts if isinstance(part, TextLines) and part.blank]:
        rank_zero_only(say)(
            f"{loose[0].path} has blank lines, as a document has, but each of its lines is judged alone; to have it "
            "judged as one text, put it into a folder and name that, or use `lit-detect explain`."
        )
    return texts


def _tell_apart(parts: Sequence[IndexedTexts]) -> None:
    """Let the ids of texts in files of equal names begin with the whole paths."""
    names = Counter(part.name for part in parts)
    for part in parts:
        if part.name and names[part.name] > 1 and part.files:
            part.name = str(part.files[0])


def _counts(kept: int, blank: int, bad: int) -> str:
    """Return a sentence of how many rows were read, kept and set aside, and why."""
    both = ", ".join(f"{count:,} {name}" for name, count in (("blank", blank), ("bad", bad)) if count)
    why = f" ({both})" if bad else ", since they are blank" if blank else ""
    return f"{kept + blank + bad:,} rows read, {kept:,} kept, {blank + bad:,} set aside{why}."


def listed_texts(path: Texts) -> list[str | Path]:
    """Return what names texts as a list."""
    return [path] if isinstance(path, str | Path) else list(path)


def named_texts(path: Texts) -> str:
    """Return what names texts for messages: the first three names."""
    given = listed_texts(path)
    return ", ".join(map(str, given[:3])) + (f" and {len(given) - 3:,} others" if len(given) > 3 else "")


def _places(name: str | Path, argument: str) -> list[Path]:
    """Return the files and folders that a name or a pattern names, and a dataset as it is."""
    if not str(name):
        raise UserError(f"{argument} is empty; name a file or folder of texts.")
    if str(name).startswith(HUB):
        return [Path(name)]
    place = resolve_data_path(name)
    if place.exists():
        return [place]
    if glob.has_magic(str(name)):
        for pattern in (str(Path(name).expanduser()), str(place)):
            if found := sorted(glob.glob(pattern, recursive=True)):
                return [Path(file) for file in found]
        raise UserError(f"{argument} is {name}, a pattern that no file matches, nor below {data_root()}; correct it.")
    raise UserError(
        f"{argument} is {name}, but there is no such file or folder, nor below {data_root()}; correct the path."
    )


def _opening(
    place: Path,
    argument: str,
    text_column: str,
    group_column: str | None,
    transform: Callable[[str], str] | None,
    split: str,
    bad: BadRows,
) -> Callable[[], IndexedTexts]:
    """Return what opens one file, folder or dataset, after a check that it is of a known format."""
    if str(place).startswith(HUB):
        return partial(HubTexts, str(place), text_column, group_column, transform, bad)
    name = _format(place, argument)
    if name.startswith("prepared"):  # whose shards are noted
        return partial(PreparedTexts, _splits(place, name, split, argument), group_column, transform, bad)
    note_input(place)
    if group_column is not None and (name not in _TABLES or _TABLES[name] is TextLines):
        raise UserError(
            f"The texts are to be grouped by {group_column}, but {place} has no columns; give a table or JSONL."
        )
    if name in _TABLES:
        return partial(_TABLES[name], place, text_column, group_column, transform, bad)
    return partial(Documents, document_files(place) if place.is_dir() else [place], transform, bad)


def _format(path: Path, argument: str) -> str:
    """Return the key of `FORMATS` that a file or folder is of."""
    files = f"a file that ends in {', '.join(_ROW_FILES)} (or .gz, .zst), .parquet, .docx or .pdf"
    if path.is_dir():
        if (path / "index.json").is_file():
            return "prepared split"
        if (path / RECORD).is_file():
            return "prepared source"
        if any(path.glob(f"*/{RECORD}")):
            return "prepared root"
        if document_files(path):
            return "folder of documents"
        raise UserError(
            f"{argument} is {path}, a folder with neither .txt, .docx or .pdf files nor texts that lit-detect prepare "
            f"wrote; give such a folder or {files}."
        )
    for ending in FORMATS:
        if ending.startswith(".") and path.name.lower().endswith(ending):
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
