"""Picture files in a user's folders: those of each class's folder, and those that a table lists."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_core.errors import UserError
from lit_core.files.listing import listed, refuse_links_out
from lit_core.screen import say
from lit_valuation.sources.base import refuse_faults
from lit_valuation.sources.rows import ENDINGS, cell_of, table_rows
from lit_valuation.sources.targets import TargetColumns

_SUFFIXES = frozenset(
    {
        *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".jp2", ".bmp", ".gif", ".tif", ".tiff", ".webp"),
        *(".pgm", ".ppm", ".pnm", ".tga", ".ico", ".pcx"),
    }
)
#: Endings of pictures that are not read, which must not be left out without a word.
_OTHER_PICTURES = frozenset(
    {
        *(".heic", ".heif", ".avif", ".jxl", ".svg", ".psd", ".xcf", ".eps", ".exr", ".hdr", ".dcm", ".nii", ".fits"),
        *(".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".mp4", ".mov", ".avi", ".npy"),
    }
)
#: Folders that systems and programs put beside those of the user.
_OF_SYSTEMS = frozenset(
    {"__MACOSX", "@eaDir", "__pycache__", "lost+found", "$RECYCLE.BIN", "System Volume Information"}
)
#: Name of the table that Hugging Face's ImageFolder finds beside the images, without its ending.
_METADATA = "metadata"


@dataclass(frozen=True)
class PictureFile:
    """A picture of a user's, which is not read yet.

    Args:
        path: Its file.
        target: The name of its class, its labels, or its numbers, as `TargetColumns.read` returns them.
        group: Name of its group; empty if groups are not asked for.
    """

    path: Path
    target: Any
    group: str = ""


def found_metadata(folder: Path) -> Path | None:
    """Return the table ``metadata.csv``, ``.jsonl`` or ``.parquet`` of a folder; None if it has none.

    Raises:
        UserError: If it has several.
    """
    found = [path for ending in ENDINGS if (path := folder / f"{_METADATA}{ending}").is_file()]
    if len(found) > 1:
        raise UserError(f"{folder} has {' and '.join(path.name for path in found)}; name one of them in `table`.")
    return found[0] if found else None


def pictures_of_table(
    folder: Path, table: Path, column: str, targets: TargetColumns, quiet: bool = False
) -> list[PictureFile]:
    """Return the pictures that a table lists, in its order, and say how many others the folder has.

    Args:
        folder: The folder.
        table: A .csv, .jsonl or .parquet file with a row per picture.
        column: Column of the files' paths, from the folder on.
        targets: The columns of the targets.
        quiet: Whether to say nothing.

    Raises:
        UserError: If a row names no file of the folder, or one that another row names, or its target is wrong.
    """
    line_of: dict[str, str] = {}
    found: list[PictureFile] = []
    faults: list[str] = []
    for where, row in table_rows(table, columns=[column, *targets.columns]):
        name = _file_name(cell_of(row, column, where), f"{where}, column {column}")
        if name in line_of:
            raise UserError(f"{where} names {name}, as {line_of[name]} does; keep one row per image.")
        line_of[name] = where.removeprefix(f"{table}, ")
        path, target = folder / name, targets.read(row, where)
        fault = _fault(path, name)
        if fault is None:
            found.append(PictureFile(path, target))
        else:
            faults.append(f"{where} ({fault})")
    if not line_of:
        raise UserError(f"{table} has no rows; add some.")
    refuse_faults(faults, len(line_of), "images")
    refuse_links_out(folder, [picture.path for picture in found])
    inside = [path.relative_to(folder) for path in _inside(folder) if path.is_file() and is_picture(path)]
    unlisted = [path for path in inside if str(path) not in line_of]
    if unlisted and not quiet:
        say(f"Left out as not in {table}: {len(unlisted):,} of the images, such as {unlisted[0]}.", error=True)
    return found


def _file_name(cell: Any, where: str) -> str:
    """Return the path of a file, from the folder on."""
    if not isinstance(cell, str) or not cell.strip():
        raise UserError(f"{where}: {cell!r} does not name a file; fill it or remove the row.")
    name = os.path.normpath(cell.strip())
    if os.path.isabs(name) or name.split(os.sep)[0] == os.pardir:
        raise UserError(f"{where}: {cell!r} is not inside the folder; give paths from the folder on.")
    return name


def _fault(path: Path, name: str) -> str | None:
    """Return what is wrong with the file of a row; None if it can be read."""
    if not os.path.isfile(path):
        known = next((suffix for suffix in sorted(_SUFFIXES) if os.path.isfile(f"{path}{suffix}")), None)
        ending = "" if known is None else f", but {name}{known}; write its ending"
        return f"there is no file {name}{ending}"
    return _not_read(path) if path.suffix.lower() in _OTHER_PICTURES else None


def pictures_by_class(folder: Path, groups: bool, quiet: bool = False) -> list[PictureFile]:
    """Return the pictures in the folders of classes, in the order of their paths, and say what else is there.

    Args:
        folder: The folder of the classes' folders.
        groups: Whether the folders inside a class's folder name groups.
        quiet: Whether to say nothing.

    Raises:
        UserError: If a picture lies in no class's folder, or is of a kind that is not read, or a class has none.
    """
    inside = [path for path in listed(folder) if path.name not in _OF_SYSTEMS]
    loose = [path for path in inside if path.is_file() and is_picture(path)]
    if loose:
        raise UserError(
            f"{loose[0]} is in the folder of no class, but the folder in which an image lies names its class; move "
            "it into one, or name a file that lists the images and their targets in `table`."
        )
    classes = [path for path in inside if path.is_dir()]
    if not classes:
        raise UserError(f"{folder} has no folders, but needs one per class; move the images into them.")
    found: list[PictureFile] = []
    others: list[Path] = []
    for of_class in classes:
        files = [path for path in _inside(of_class) if path.is_file()]
        found += _of_class(of_class, [path for path in files if path.suffix.lower() in _SUFFIXES], groups)
        others += [path for path in files if path.suffix.lower() not in _SUFFIXES]
    unread = [path for path in others if is_picture(path)]
    refuse_faults([f"{path} ({_not_read(path)})" for path in unread], len(found) + len(unread), "images")
    if not quiet:
        hidden = [path for path in folder.rglob("*") if is_picture(path) and _is_hidden(path.relative_to(folder))]
        if hidden:
            say(f"Left out as hidden: {len(hidden):,} of the images, such as {min(hidden)}.", error=True)
        if others:
            kinds = ", ".join(kind or "no ending" for kind, _ in Counter(path.suffix for path in others).most_common(3))
            say(f"Left out as not pictures: {len(others):,} of the files ({kinds}), such as {others[0]}.", error=True)
        if (table := found_metadata(folder)) is not None:
            say(f"Note: {table} is not read, since folders name the classes here; name its columns.", error=True)
    return found


def _of_class(folder: Path, images: Sequence[Path], groups: bool) -> Iterator[PictureFile]:
    if not images:
        raise UserError(f"{folder} has no images, but is the folder of a class; fill it or remove it.")
    for path in images:
        inner = path.relative_to(folder).parts
        if groups and len(inner) < 2:
            raise UserError(
                f"{path} is not in the folder of a group, but `groups` is true; move it into one, or set groups to "
                "false."
            )
        yield PictureFile(path, folder.name, inner[0])


def _inside(folder: Path) -> list[Path]:
    return [path for path in listed(folder, "**/*") if not _OF_SYSTEMS & {*path.relative_to(folder).parts}]


def _is_hidden(path: Path) -> bool:
    """Return whether a path from the folder on is hidden, or in a folder that systems and programs make."""
    return any(part.startswith(".") or part in _OF_SYSTEMS for part in path.parts)


def is_picture(path: Path) -> bool:
    """Return whether a file has the ending of a picture, whether it is read or not."""
    return path.suffix.lower() in _SUFFIXES | _OTHER_PICTURES


def _not_read(path: Path) -> str:
    return f"{path.suffix.lower()} is not read; convert it to PNG or JPEG"
