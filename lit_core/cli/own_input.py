"""An output that the same command reads, which it would destroy before it has read it, or in place of the only copy."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from lit_core.errors import UserError
from lit_core.files.paths import resolve_data_path
from lit_core.record import record_path

#: Names of the arguments that are written, or are texts of which one may be the name of a file by chance.
_NOT_READ = ("output", "prompt", "words")


def refuse_own_input(config: Namespace) -> None:
    """Refuse an output that is a file which another argument names, or is in a folder which it names.

    The file may be named by another spelling or a link. In a folder, a file with a record of ours beside it is an
    earlier output, which may be replaced.

    Args:
        config: The parsed arguments of a verb, with its config files.

    Raises:
        UserError: If there is such an argument; ``--overwrite`` does not change that.
    """
    output = config.get("output")
    if not isinstance(output, str) or not os.path.isfile(target := Path(output).expanduser()):
        return
    is_ours = record_path(target).exists()
    for name, value in config.items():
        for text in _texts(value) if name.partition(".")[0] not in _NOT_READ else ():
            if _is_same(text, target):
                raise UserError(f"output is {output}, which {name} reads; name another file.")
            if not is_ours and _is_in(text, target):
                raise UserError(f"output is {output}, a file of {text}, which {name} reads; name another file.")


def _is_same(text: str, target: Path) -> bool:
    with suppress(OSError, ValueError, RuntimeError):  # no path, or none of a file that is there
        return os.path.samefile(resolve_data_path(text), target)
    return False


def _is_in(text: str, target: Path) -> bool:
    with suppress(OSError, ValueError, RuntimeError):
        folder = resolve_data_path(text)
        return folder.is_dir() and target.resolve().is_relative_to(folder.resolve())
    return False


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Namespace):
        value = vars(value)
    if isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)
    elif value is not None and not isinstance(value, bool | int | float):
        yield os.fspath(value) if isinstance(value, os.PathLike) else str(value)
