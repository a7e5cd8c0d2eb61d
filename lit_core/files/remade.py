"""Files that can be made again, such as those of a cache: a damaged one is set aside, and refuses no command."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from lit_core.errors import UserError
from lit_core.files.formats import NewerFormat
from lit_core.screen import say

#: Part of the names of files that are set aside, before a number.
SET_ASIDE = ".damaged-"
Content = TypeVar("Content")


def read_or_set_aside(path: Path, read: Callable[[str], Content], whole: Path | None = None) -> Content | None:
    """Return what is in a file; a damaged one is renamed beside its place, and said to be, so that it is made anew.

    What a user made must not be read so: only what a command makes again from the same inputs.

    Args:
        path: The file.
        read: Reads it; called with the remedy for its message.
        whole: The folder that is set aside in its place; None for the file alone.

    Returns:
        What `read` returned; None if the file was damaged.

    Raises:
        UserError: If a newer release wrote it.
    """
    whole = whole or path
    aside = free_name(whole)
    try:
        return read(f"it is set aside as {aside} and made anew")
    except NewerFormat:
        raise
    except UserError as error:
        with suppress(FileNotFoundError):  # another process was faster
            whole.rename(aside)
        say(str(error), error=True)
        return None


def free_name(path: Path) -> Path:
    """Return the path to which a damaged file or folder is renamed."""
    number = 1
    while (aside := path.with_name(f"{path.name}{SET_ASIDE}{number}")).exists():
        number += 1
    return aside
