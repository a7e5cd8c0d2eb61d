"""Checks of the path that a command writes to, made before the work whose result is written there."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from lit_core.errors import UserError
from lit_core.files.paths import FULL_DISK, locked_path, make_folder
from lit_core.files.temporary import temporary

#: File in a folder of unfinished work: all of it is done, and its output may be there already.
COMPLETE = "complete"
_is_overwriting = False
#: Outputs that the present command holds.
_held: set[Path] = set()
#: Their locks; None outside a command.
_locks: ExitStack | None = None


@contextmanager
def command_outputs(overwrite: bool, is_main: bool = True) -> Iterator[None]:
    """Hold each output that is checked in the block until its end, so that another command that writes it is refused.

    Args:
        overwrite: Whether the command replaces files that exist, as ``--overwrite`` says.
        is_main: Whether this process holds the outputs, as the first of those that work together does.
    """
    global _is_overwriting, _held, _locks
    former = _is_overwriting, _held, _locks
    with ExitStack() as locks:
        _is_overwriting, _held, _locks = overwrite, set(), locks if is_main else None
        try:
            yield
        finally:
            _is_overwriting, _held, _locks = former


def is_overwriting() -> bool:
    """Tell whether the present command replaces files that exist."""
    return _is_overwriting


def new_folder(output: str | Path, argument: str = "output") -> Path:
    """Return the path of a folder that does not exist yet and can be created.

    Args:
        output: The path, in which ``~`` is the home folder.
        argument: Name of the argument, for error messages.

    Raises:
        UserError: If the path exists, nothing can be written there, or another command is writing it.
    """
    path = Path(output).expanduser()
    _check(path, argument)
    _hold(path, argument)
    if path.exists():
        raise UserError(f"{argument} is {path}, which exists already; give another path or remove it.")
    return path


def output_file(output: str | Path, argument: str = "output", continued: bool = False, work: str | None = None) -> Path:
    """Return the path of a file that can be written. A file that exists is replaced only with ``--overwrite``.

    Args:
        output: The path, in which ``~`` is the home folder.
        argument: Name of the argument, for error messages.
        continued: Whether a file that exists is of the very same work, which goes on; the work has a lock of its own.
        work: Format of the name of the folder of unfinished work beside it, in which ``{}`` is the output's name. An
            output that was written just before a kill, so that this folder is complete, is written again.

    Raises:
        UserError: If the path is a folder, the file exists, nothing can be written there, or another command is
            writing it.
    """
    path = Path(output).expanduser()
    _check(path, argument)
    if path.is_dir():
        raise UserError(f"{argument} is {path}, which is a folder; name a file.")
    if not continued:
        _hold(path, argument)
    if path.exists() and not (continued or _is_overwriting or _is_being_written(path, work)):
        raise UserError(
            f"{argument} is {path}, which exists already; give another path, remove it, or add --overwrite."
        )
    return path


def output_folder(output: str | Path, argument: str = "output") -> Path:
    """Return the path of a folder in which files can be written. It may exist.

    Args:
        output: The path, in which ``~`` is the home folder.
        argument: Name of the argument, for error messages.

    Raises:
        UserError: If the path is a file, or nothing can be written there.
    """
    path = Path(output).expanduser()
    _check(path, argument, may_be_file=False)
    return path


def _hold(path: Path, argument: str) -> None:
    """Lock an output until the end of the command."""
    if _locks is None or path.absolute() in _held:
        return
    made = [folder for folder in path.parents if not folder.exists()]
    make_folder(path.parent)
    _locks.callback(_remove_empty, made)
    _locks.enter_context(locked_path(path, f"{argument} is {path}, which another command is writing; wait for it."))
    _held.add(path.absolute())


def _remove_empty(folders: Sequence[Path]) -> None:
    for folder in folders:
        with suppress(OSError):  # not empty, or gone
            folder.rmdir()


def _is_being_written(path: Path, work: str | None) -> bool:
    """Tell whether a command was killed just as it wrote an output."""
    return work is not None and (path.with_name(work.format(path.name)) / COMPLETE).is_file()


def _check(path: Path, argument: str, may_be_file: bool = True) -> None:
    """Check that the nearest folder that exists takes new folders. Nothing is left, and several processes may check.

    What is tried has a name as long as the longest beside the output, so that the work does not fail at its end.
    """
    if path.absolute() == Path(path.anchor or os.sep):
        raise UserError(f"{argument} is {path}, where all files of the machine are; name a folder or file below it.")
    try:
        if not may_be_file and path.is_file():
            raise UserError(f"{argument} is {path}, which is a file; name a folder.")
        above = [folder for folder in path.parents if folder.exists()]
        folder = path if path.is_dir() else above[0]
        if not folder.is_dir():
            raise UserError(f"{argument} is {path}, but {folder} is a file; give another path.")
        for new in {path, *path.parents} - set(above):
            with temporary(folder / new.name, folder=True):
                pass
    except OSError as error:
        if error.errno in FULL_DISK:
            raise
        raise UserError(
            f"{argument} is {path}, but nothing can be written there ({error.strerror}); give another path."
        ) from error
