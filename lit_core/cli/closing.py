"""The lines with which a command of Lightning ends: its scores, its folder, and what to do next."""

from __future__ import annotations

from pathlib import Path

from lit_core.cli.lit_cli import LitCLI
from lit_core.cli.run_folder import relative
from lit_core.cli.scores import best_table
from lit_core.files.logged import logged_values
from lit_core.lightning.loggers import CSVLog, EventLog
from lit_core.screen import quoted, say


def closing_lines(program: str, cli: LitCLI) -> None:
    """Print them.

    Args:
        program: Name of the console script.
        cli: The command that has run.
    """
    if cli.run_folder is None or not cli.trainer.is_global_zero:
        return
    folder = relative(cli.run_folder)
    if cli.subcommand in ("validate", "test"):
        lines = cli.answer()
    elif cli.subcommand == "fit":
        lines = best_table(logged_values(cli.run_folder), cli.best)
    else:
        lines = []
    say(*(["", *lines] if lines else []), "", f"Run folder   {folder}")
    last = cli.run_folder / "checkpoints" / "last.ckpt"
    if cli.subcommand == "fit" and last.exists():
        say(f"Test it      {program} test --ckpt_path {quoted(relative(last))}")
        if getattr(cli.model, "is_trained", True):
            say(f"Resume it    {program} fit --ckpt_path {quoted(relative(last))} --trainer.max_steps STEPS")
    loggers = cli.trainer.loggers
    if any(cli.run_folder.glob("events.out.tfevents.*")):  # of a prediction there are none
        say(f"Look at it   tensorboard --logdir {quoted(folder)}")
    for logger in loggers:
        if not isinstance(logger, EventLog | CSVLog):
            where = f" in {relative(Path(logger.save_dir))}" if logger.save_dir else ""
            say(f"Logged too   {type(logger).__name__}{where}")
