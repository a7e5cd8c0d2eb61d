"""The verb ``board``: one page of runs or of reports, to be sent to somebody without TensorBoard."""

from __future__ import annotations

from pathlib import Path

from lit_core import record
from lit_core.board.page import html
from lit_core.board.reports import is_report
from lit_core.board.runs import is_run, read_run
from lit_core.errors import UserError
from lit_core.files.paths import atomic_write
from lit_core.screen import say


def board(paths: list[str], output: str) -> None:
    """Write one page of runs or of a study, to be sent to somebody without TensorBoard.

    The page is one HTML file that loads nothing: scores, charts, pictures and texts that TensorBoard shows, and
    config, command, seeds and versions.

    Args:
        paths: Folders of runs, which are shown side by side, of studies or of reports of detectors; the flag may be
            left out, as in ``lit-moe board runs/moe/first --output page.html``. A folder of such is all that it holds.
        output: HTML file to write.

    Raises:
        UserError: If a path is none of these, or a file in it is damaged.
    """
    page = record.output_with_record(output)
    folders = list(dict.fromkeys(folder for path in paths for folder in _folders(Path(path).expanduser())))
    for folder in folders:
        record.note_input(folder)
    runs = [read_run(folder) for folder in folders if not is_report(folder)]
    written = html(runs, [folder for folder in folders if is_report(folder)])
    record.write_record(page)  # before the page, which ends the work, so that the same command goes on after a kill
    atomic_write(page, written)
    say(f"Page         {page}")


def _folders(path: Path) -> list[Path]:
    """Return the folders of runs and reports that a path stands for."""
    if is_run(path) or is_report(path):
        return [path]
    inside = [folder for folder in sorted(path.glob("*")) if is_run(folder) or is_report(folder)]
    if not inside:
        raise UserError(
            f"paths names {path}, which is neither a run that has logged something, nor a report, nor a folder of "
            "such; give the folder that `fit`, `study` or `report` names at its end."
        )
    return inside
