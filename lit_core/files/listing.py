"""What lies in a folder that others may have made: hidden names are left out, links out of it are not followed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from lit_core.errors import UserError


def listed(folder: Path, pattern: str = "*") -> list[Path]:
    """Return the files and folders that match a pattern, sorted; hidden ones and what is inside those are left out.

    Args:
        folder: The folder.
        pattern: Pattern of `Path.glob`.

    Raises:
        UserError: If one is a link that leads nowhere, or out of the folder, or has a name that is not text.
    """
    found = sorted(folder.glob(pattern))
    shown = [path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    refuse_links_out(folder, shown)
    for path in shown:
        if not _is_text(str(path.relative_to(folder))):
            raise UserError(f"{path} has a name that is not in UTF-8, but names become classes and ids; rename it.")
    return shown


def _is_text(name: str) -> bool:
    """Tell whether a name can be written as UTF-8; the system gives bytes that it cannot decode as half surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def refuse_links_out(folder: Path, paths: Iterable[Path]) -> None:
    """Refuse links by which a folder of others would have files read that are not its own.

    A folder in the cache of the Hugging Face hub, whose files are links to the cache's ``blobs``, may have those.

    Args:
        folder: The folder.
        paths: Paths below it; those that do not exist are ignored.

    Raises:
        UserError: If one is a link that leads nowhere, or out of the folder.
    """
    roots, parents = [os.path.realpath(folder)], dict[Path, str]()
    if folder.resolve().parent.name == "snapshots":
        blobs = str(folder.resolve().parents[1] / "blobs")
        roots += [blobs] if os.path.realpath(blobs) == blobs else []  # it may lead anywhere itself
    for path in paths:
        if path.parent not in parents:
            parents[path.parent] = os.path.realpath(path.parent)
        target = os.path.realpath(path) if path.is_symlink() else os.path.join(parents[path.parent], path.name)
        if path.is_symlink() and not os.path.exists(target):
            raise UserError(f"{path} is a link to a file that does not exist; remove the link or restore the file.")
        if not any(os.path.commonpath([root, target]) == root for root in roots):
            raise UserError(f"{path} is a link out of {folder} and not followed; put a copy of the file there.")
