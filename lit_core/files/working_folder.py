"""The root folder of ``prepare``: locked for one process, with unfinished work apart and a record of the settings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypedDict

from lit_core.errors import UserError
from lit_core.files.formats import read_stamped
from lit_core.files.paths import data_root, locked_folder, make_folder, remove_folder, remove_torn_files, says_where
from lit_core.screen import say

#: Folder of unfinished work, inside the root so that a rename finishes it.
WORK = ".prepare.litshift"
#: File of a prepared folder that records what it was prepared from, and how.
RECORD = "prepare.json"
#: Name of its format.
PREPARED = "litshift-prepared"


def root_to_prepare(root: str | Path) -> Path:
    """Return the folder that ``prepare`` writes to, and from which its data are read.

    A name is below the data root, unless the folder of that name in the working directory was prepared: what else is
    there is the user's own.

    Args:
        root: An absolute path, one that begins with ``./`` or ``../``, or a name.
    """
    folder = Path(root).expanduser()
    prepared = (folder / RECORD).is_file() or any(folder.glob(f"*/{RECORD}"))
    return folder if says_where(root) or prepared else data_root() / folder


@contextmanager
def workplace(root: Path, finished: str) -> Iterator[Path]:
    """Lock the root for one process. A kill leaves work that can be resumed, and so does a failure.

    A failure before any piece was finished leaves the root as it was.

    Args:
        root: The folder, as `output_folder` has checked it; created if needed.
        finished: Pattern of the files below the folder for unfinished work that each stand for a finished piece.

    Yields:
        Path of the folder for unfinished work inside the root. It may not exist yet; it is removed at the end, with
        what other commands that were killed have left in it.

    Raises:
        UserError: If another process prepares there.
    """
    made = [folder for folder in (root, *root.parents) if not folder.exists()]
    make_folder(root)
    work = root / WORK
    try:
        with locked_folder(root, f"root is {root}, where another prepare is running; wait until it ends."):
            begun = work.exists()
            remove_torn_files(root)  # of a killed run
            try:
                yield work
            except KeyboardInterrupt:
                say("Stopped; run the same command again to resume.", error=True)
                raise
            except Exception:
                if any(work.glob(finished)):
                    say(f"What was finished is kept in {work}; the same command resumes.", error=True)
                elif not begun:
                    remove_folder(work)
                raise
            remove_folder(work)
    except Exception:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
        raise


def is_prepared(folder: Path, settings: dict[str, Any], written: Callable[[dict[str, Any]], dict[str, Any]]) -> bool:
    """Tell whether a folder was prepared with these settings.

    Args:
        folder: The folder; it need not exist.
        settings: The settings, as they are written.
        written: Makes those of plain ones, which former versions wrote.

    Raises:
        UserError: If it was prepared with others, or not by ``prepare``.
    """
    if not folder.exists():
        return False
    record = folder / RECORD
    if not record.is_file():
        raise UserError(f"{folder} was not made by prepare, since it has no {RECORD}; choose another root or move it.")
    former = _flat(written(read_prepared(record, f"remove {folder} to prepare it again")["settings"]))
    now = _flat(settings)
    for key in [*now, *former]:
        if former.get(key) != now.get(key):
            raise UserError(
                f"{folder} was prepared with {key} {former.get(key)}, and now it is {now.get(key)}; choose another "
                "root, or remove that folder to prepare it again."
            )
    return True


class _Sets(TypedDict, total=False):
    """What former versions did not record."""

    sets: dict[str, str]


class Prepared(_Sets):
    """Content of the record of a prepared folder, as far as it is read."""

    settings: dict[str, Any]


def read_prepared(record: Path, remedy: str) -> dict[str, Any]:
    """Read the record of a prepared folder.

    Args:
        record: The file.
        remedy: What to do about a damaged one, as an imperative.

    Raises:
        UserError: If it is damaged, or of another version.
    """
    content: dict[str, Any] = read_stamped(record, PREPARED, Prepared, remedy)
    return content


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
