"""What is in a run folder before a command writes there: its own, or another's, which stays as it is."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from lit_core.cli.ranks import launched_rank
from lit_core.cli.run_folder import EVENTS, was_there
from lit_core.errors import UserError
from lit_core.files.logged import logged_columns
from lit_core.files.text_files import read_whole
from lit_core.record import read
from lit_core.screen import quoted


def refuse_foreign_files(folder: Path, record: str) -> None:
    """Check that what a command is going to replace or append to is what such a command wrote.

    Args:
        folder: The run folder.
        record: File name of the command's record.

    Raises:
        UserError: If the record or the metrics of that name are of something else.
    """
    remedy = "move it away, or choose another --run"
    if (folder / record).is_file():
        read(folder / record, remedy)
    if "step" not in logged_columns(folder / "metrics.csv"):
        raise UserError(f"{folder / 'metrics.csv'} has no column `step`, so no run wrote it; {remedy}.")


def begin_run(folder: Path, config_text: str, checkpoints: list[Path]) -> None:
    """Remove what is left in the folder of a new run by the same fit, ended before its first checkpoint.

    The folder is held; further ranks do nothing.

    Args:
        folder: The run folder.
        config_text: The config of the run as YAML, with which its `config.yaml` begins.
        checkpoints: Folders in which the run saves checkpoints, besides its own.

    Raises:
        UserError: If the folder holds another run, or files that no run wrote.
    """
    if launched_rank() != "0":
        return
    config, record, own = folder / "config.yaml", folder / "run.json", folder / "checkpoints"
    if config.is_file():
        files = [file for place in (own, *checkpoints) for file in place.glob("*.ckpt")]
        if files or not read_whole(config).startswith(config_text.encode()) or not _is_unfinished(record):
            last = own / "last.ckpt"
            newest = last if last in files else max(files, key=lambda file: file.stat().st_mtime_ns, default=None)
            resume = "" if newest is None else f"resume it with --ckpt_path {quoted(newest)}, "
            raise UserError(
                f"--run is {folder.name}, but {folder} holds a run already; {resume}choose another name or delete the "
                "folder."
            )
    elif any(folder.glob("config.*.yaml")):  # the rest is of another command
        return
    elif not _is_begun(record) and (not was_there(own) or any(own.iterdir())):  # no fit was ended here
        replaced = [folder / "hparams.yaml", folder / "metrics.csv", record, *own.glob("*.ckpt")]
        if names := [str(path.relative_to(folder)) for path in replaced if path.exists()]:
            raise UserError(
                f"--run is {folder.name}, but {folder} has {', '.join(names)}, which no run of ours wrote; choose "
                "another name or move them away."
            )
        return
    for path in (folder / "metrics.csv", folder / "hparams.yaml"):
        path.unlink(missing_ok=True)
    for path in (*folder.glob(EVENTS), config, record):  # in this order, so that a kill here leaves what is taken up
        path.unlink(missing_ok=True)


def _is_begun(record: Path) -> bool:
    """Tell whether a fit was ended between its record and its config; before, it holds its empty `checkpoints`."""
    with suppress(UserError):  # of something else
        return _is_unfinished(record)
    return False


def _is_unfinished(record: Path) -> bool:
    return record.is_file() and read(record)["sessions"][-1]["exit"] != "finished"
