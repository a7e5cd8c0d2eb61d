"""Files and folders that are being written, beside their target; locked, so that what a kill left is known."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

#: End of the names of all of them.
SUFFIX = ".litshift.tmp"


@contextmanager
def temporary(target: Path, folder: bool = False) -> Iterator[Path]:
    """Yield a new hidden file or folder beside a target, which is removed at the end unless it was renamed.

    Those that killed processes have left in the folder of the target are removed first, of any target.

    Args:
        target: The file or folder to which it will be renamed.
        folder: Whether it is a folder.
    """
    remove_left(target.parent)
    path, handle = _create(target, folder)
    try:
        yield path
    finally:
        remove(path)
        os.close(handle)


@contextmanager
def scratch(name: str) -> Iterator[Path]:
    """Yield a new hidden folder where the system keeps temporary files, which is removed at the end.

    What killed processes have left there is removed first.

    Args:
        name: Beginning of its name.
    """
    with temporary(Path(tempfile.gettempdir()) / name, folder=True) as path:
        yield path


def remove_left(folder: Path) -> None:
    """Remove what killed processes have left in a folder."""
    for left in folder.glob(f".*{SUFFIX}"):
        with suppress(OSError):  # locked: a process is writing it; or removed by another one
            handle = os.open(left, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(left)
            finally:
                os.close(handle)


def _create(target: Path, folder: bool) -> tuple[Path, int]:
    """Create a file or folder and lock it; return its path and what holds the lock."""
    while True:
        if folder:
            name = tempfile.mkdtemp(suffix=SUFFIX, prefix=f".{target.name}.", dir=target.parent)
        else:
            created, name = tempfile.mkstemp(suffix=SUFFIX, prefix=f".{target.name}.", dir=target.parent)
            os.close(created)
        with suppress(FileNotFoundError):  # another process took it for one that was left
            handle = os.open(name, os.O_RDONLY)
            with suppress(OSError):  # a file system without locks
                fcntl.flock(handle, fcntl.LOCK_EX)  # waits for a process that is about to remove it
            if os.path.exists(name):
                return Path(name), handle
            os.close(handle)


def remove(path: Path) -> None:
    """Remove a file or a folder with its content, if it exists."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
