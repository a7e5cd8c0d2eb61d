"""The folder in which ``prepare`` works: locked for one process at a time and complete at any moment."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lit_core.errors import UserError
from lit_core.files.paths import locked_folder

#: Unfinished work, inside the root so that finishing is a rename.
WORK = ".prepare"
#: What a folder was prepared from and how, inside it.
RECORD = "prepare.json"


def require(holds: bool, argument: str, value: object, rule: str) -> None:
    """Refuse a value that breaks a rule."""
    if not holds:
        raise UserError(f"{argument} is {value}, but must be {rule}.")


@contextmanager
def workplace(root: Path) -> Iterator[Path]:
    """Keep others out of the root; after a failure leave it as it was, after a kill leave what can be gone on with.

    Args:
        root: The folder; made if needed.

    Yields:
        A folder inside for unfinished work. It need not be made, and is removed at the end where it is empty.

    Raises:
        UserError: If the root is a file, or another process is at work there.
    """
    if root.exists() and not root.is_dir():
        raise UserError(f"root is {root}, which is a file; name a folder.")
    made = [folder for folder in (root, *root.parents) if not folder.exists()]
    root.mkdir(parents=True, exist_ok=True)
    work = root / WORK
    try:
        with locked_folder(root, f"root is {root}, where another prepare is at work; wait for it."):
            begun = work.exists()
            for left in root.glob(".*.tmp"):  # of a killed run
                left.unlink()
            try:
                yield work
            except KeyboardInterrupt:
                print("Stopped; run the same command again to resume.", file=sys.stderr, flush=True)
                raise
            except Exception:
                if not begun:
                    shutil.rmtree(work, ignore_errors=True)
                raise
            with suppress(OSError):  # not empty: another command was killed there and may go on
                work.rmdir()
    except Exception:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
        raise


def plain(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings as they are read back from a record."""
    return json.loads(json.dumps(settings))


def is_prepared(folder: Path, settings: dict[str, Any]) -> bool:
    """Tell whether a folder was prepared with these settings.

    Args:
        folder: The folder, with its `RECORD`, or none.
        settings: The settings, as `plain` returns them.

    Raises:
        UserError: If it was prepared with others, or not by ``prepare``.
    """
    if not folder.exists():
        return False
    record = folder / RECORD
    if not record.is_file():
        raise UserError(f"{folder} was not made by prepare, since it has no {RECORD}; choose another root or move it.")
    try:
        former = _flat(json.loads(record.read_bytes())["settings"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{record} is damaged; restore it, or remove {folder} to prepare it again.") from error
    now = _flat(settings)
    for key in [*now, *former]:
        if former.get(key) != now.get(key):
            raise UserError(
                f"{folder} was prepared with {key} {former.get(key)}, and now it is {now.get(key)}; choose another "
                "root, or remove that folder to prepare it again."
            )
    return True


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
