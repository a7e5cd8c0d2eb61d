"""The folder that a run writes to, and the location of its configs."""

from __future__ import annotations

import fcntl
import os
from contextlib import ExitStack, suppress
from importlib.resources import files
from pathlib import Path

import lit_core
from lit_core.cli.ranks import is_launched_from_outside, launched_rank
from lit_core.errors import UserError, did_you_mean
from lit_core.files.paths import locked_folder, make_folder, remove_folder
from lit_core.files.temporary import remove_left
from lit_core.moved_names import MOVED_CONFIGS
from lit_core.screen import quoted, say

_AGREED = "LITSHIFT_RUN_FOLDER"
EVENTS = "events.out.tfevents.*"
#: What is finished in a run folder: rows and tables of predictions, and checkpoints.
_FINISHED = ("*.work", "predictions.*", "checkpoints/*")
#: Set by a study for the commands of its cells: the folder that replaces ``runs/<package>``.
STUDY = "LITSHIFT_STUDY"
_lock = ExitStack()
#: Inodes of the run folder, its parents, configs, events and checkpoints that existed before this command; None if
#: this process chose no folder.
_before: dict[Path, int] | None = None
_is_numbered = False


def packaged_configs() -> Path:
    """Return the folder of the packaged configs, which a clone that was not installed has beside lit_core."""
    try:
        return Path(str(files("lit_core.configs")))
    except ModuleNotFoundError:
        return Path(lit_core.__file__).parents[1] / "configs"


def find_config(path: str) -> str:
    """Find a config in the working directory, then among the packaged ones.

    Args:
        path: As typed, for example ``configs/moe/x.yaml``; the former path of a packaged config finds the present one.

    Returns:
        The path of an existing file.

    Raises:
        UserError: If neither exists.
    """
    if os.path.isfile(path):
        return path
    packaged, name = packaged_configs(), path.removeprefix("configs/")
    candidate = packaged / MOVED_CONFIGS.get(name, name)
    if candidate.is_file():
        return str(candidate)
    known = [f"configs/{file.relative_to(packaged)}" for file in sorted(packaged.rglob("*.yaml"))]
    folders = ", ".join(dict.fromkeys(os.path.dirname(name) for name in known))
    raise UserError(
        f"--config is {path}, but there is no such file here or among the packaged configs."
        f"{did_you_mean(path, known) or f' The packaged ones lie in {folders}.'}"
    )


def choose_run_folder(package: str, run: str | None, configs: list[str], ckpt_path: str | None) -> Path:
    """Choose the folder of a run.

    Args:
        package: Short name of the package, the folder below ``runs``.
        run: Name that the user gave; None derives one.
        configs: Config files of the command; the last one's stem names the run.
        ckpt_path: A checkpoint that is resumed or tested; its run's folder is used again.

    Returns:
        The folder, which exists. Processes that Lightning starts get the same one as the process that started them.

    Raises:
        UserError: If the name is not a plain folder name, or is missing although an external launcher starts several
            processes.
    """
    rank = os.environ.get("LOCAL_RANK", "0")
    if _AGREED in os.environ and rank != "0":
        return Path(os.environ[_AGREED])
    global _before, _is_numbered
    root = Path(os.environ.get(STUDY) or Path("runs") / package)
    remove_left(root)
    before = [parent for parent in (root, root.parent) if parent.exists()]
    former = Path(ckpt_path).parent.parent if ckpt_path and Path(ckpt_path).parent.name == "checkpoints" else None
    if former is not None and not (former / "config.yaml").is_file():  # a folder of that name that is not a run's
        former = None
    made = None
    if run is not None:
        if Path(run).name != run or run in ("", ".", ".."):
            raise UserError(
                f"--run is {run or 'empty'}, but a run's name is one folder below {root}; give it without a slash."
            )
        folder = root / run
    elif former is not None:
        folder = former
    elif is_launched_from_outside():
        raise UserError("--run is not given, but several processes were started that must agree on it; add --run NAME.")
    else:
        folder = made = _make_next(root, Path(configs[-1]).stem if configs else "run")
    if folder != made and not _make(folder):
        before += [folder, *folder.glob("config*.yaml"), *folder.glob(EVENTS), *folder.glob("checkpoints")]
    if not folder.is_dir():  # a link to nothing
        raise UserError(f"The run folder is {folder}, which is no folder; choose another --run.")
    _is_numbered = folder == made
    _before = {path.absolute(): path.stat().st_ino for path in before}
    os.environ[_AGREED] = str(folder.absolute())
    return folder


def hold_run_folder(folder: Path) -> None:
    """Lock a run that is to be trained, until `forget_run_folder`; further ranks do nothing.

    The lock is one of the folder of checkpoints, since loggers lock the run folder for each row, evaluations too.

    Raises:
        UserError: If another process trains it.
    """
    if launched_rank() == "0":
        checkpoints, busy = folder / "checkpoints", f"{folder} is being trained by another process; wait for it."
        make_folder(checkpoints)
        handle = _lock.enter_context(locked_folder(checkpoints, busy))
        _lock.callback(_remove_empty, checkpoints)
        _lock.callback(fcntl.flock, handle, fcntl.LOCK_UN)  # a forked process may hold the descriptor too


def was_there(path: Path) -> bool:
    """Tell whether a file or folder of the run folder was there before this command: a config, events, checkpoints."""
    return _before is not None and path.absolute() in _before


def current_run_folder() -> Path | None:
    """Return the folder that was chosen for the running command, if any."""
    return Path(os.environ[_AGREED]) if _AGREED in os.environ else None


def discard_new_files() -> None:
    """Remove what a failed command wrote below ``runs``, unless it already wrote the run's config or finished work.

    The loggers may write before the config is written. In a folder that existed before the command, where other
    processes may be writing, only the events of this process are removed.
    """
    folder = current_run_folder()
    if folder is None or _before is None or not folder.exists():
        return
    if any(_before.get(config) != config.stat().st_ino for config in folder.glob("config*.yaml")):
        return
    if folder not in _before and any(path for pattern in _FINISHED for path in folder.glob(pattern)):
        if _is_numbered:
            say(f"Add --run {quoted(folder.name)} to go on in {folder}.", error=True)
        return
    if folder in _before:
        for events in folder.glob(f"{EVENTS}.{os.getpid()}.*"):
            if events not in _before:
                events.unlink(missing_ok=True)
    else:
        remove_folder(folder)
    for path in (folder.parent, folder.parent.parent):  # its package, runs
        if path not in _before and path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def relative(path: Path) -> Path:
    """Return a path as it is typed from the working directory, where it lies below it; otherwise the whole path."""
    path = path.absolute()
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def forget_run_folder() -> None:
    """Let the next command in this process choose its own folder."""
    global _before
    _before = None
    _lock.close()
    os.environ.pop(_AGREED, None)


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):  # it is not empty, or gone
        folder.rmdir()


def _make(folder: Path) -> bool:
    """Create a folder and its parents, and tell whether it did not exist before."""
    make_folder(folder.parent)
    try:
        folder.mkdir()
    except FileExistsError:
        return False
    return True


def _make_next(root: Path, stem: str) -> Path:
    """Create the folder of a name with the first free number, safely if other runs start at the same time."""
    number = 1
    while True:
        folder = root / f"{stem}-{number}"
        if _make(folder):
            return folder
        number += 1
