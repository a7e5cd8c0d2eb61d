"""Whether a folder of shard sets is still what ``prepare`` wrote there."""

from __future__ import annotations

from pathlib import Path

from lit_core.data.shards import INDEX, ShardSet
from lit_core.errors import UserError
from lit_core.files.paths import file_sha256
from lit_core.files.working_folder import RECORD, read_prepared
from lit_core.screen import say


def index_hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of the index of each shard set below a folder, by the path from there, for its record."""
    return {name: file_sha256(folder / name / INDEX) for name in _names(folder)}


def check_prepared(folder: Path) -> None:
    """Compare all shard sets below a prepared folder with its record and their indices.

    Args:
        folder: A folder with the record of ``prepare``.

    Raises:
        UserError: If a file is missing or not what was written.
    """
    recorded = read_prepared(folder / RECORD, f"remove {folder} to prepare it again").get("sets", {})
    for name in sorted({*_names(folder), *recorded}):  # one that is missing, too
        ShardSet(folder / name)


def is_whole(folder: Path) -> bool:
    """Tell whether nothing in a prepared folder is damaged or missing; say what is, since it is made anew then."""
    try:
        check_prepared(folder)
    except UserError as error:
        say(f"{folder} is prepared anew. {error}")
        return False
    return True


def _names(folder: Path) -> list[str]:
    found = (index.parent.relative_to(folder) for index in folder.rglob(INDEX))
    return sorted(name.as_posix() for name in found if not any(part.startswith(".") for part in name.parts))
