"""The lines with which a command of Lightning ends: its scores, its folder, and what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lit_core.cli.lit_cli import LitCLI
from lit_core.cli.run_folder import relative
from lit_core.lightning.loggers import CSVLog, EventLog
from lit_core.screen import on_screen, quoted, say


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
        say(*score_table({key: float(value) for key, value in cli.trainer.callback_metrics.items()}).split("\n"))
    say("", f"Run folder   {folder}")
    last = cli.run_folder / "checkpoints" / "last.ckpt"
    if cli.subcommand == "fit" and last.exists():
        say(f"Test it      {program} test --ckpt_path {quoted(relative(last))}")
        if getattr(cli.model, "is_trained", True):
            say(f"Resume it    {program} fit --ckpt_path {quoted(relative(last))} --trainer.max_steps STEPS")
    loggers = cli.trainer.loggers
    if any(isinstance(logger, EventLog) for logger in loggers):
        say(f"Look at it   tensorboard --logdir {quoted(folder)}")
    for logger in loggers:
        if not isinstance(logger, EventLog | CSVLog):
            where = f" in {relative(Path(logger.save_dir))}" if logger.save_dir else ""
            say(f"Logged too   {type(logger).__name__}{where}")


def score_table(metrics: Mapping[str, float]) -> str:
    """Return a table of the metrics ``{stage}/{source}/{metric}``: a row per source, a column per metric.

    Args:
        metrics: Values by key; keys of another form are left out.

    Example:
        >>> print(score_table({"test/austen/loss": 3.25, "test/stdlib/loss": 2.5, "test/austen/router/mri": 0.5}))
        <BLANKLINE>
        test     loss
        austen   3.25
        stdlib    2.5
    """
    rows: dict[tuple[str, str], dict[str, float]] = {}
    for key, value in metrics.items():
        if key.count("/") == 2:
            stage, source, metric = key.split("/")
            rows.setdefault((stage, source), {})[metric] = value
    columns = sorted({metric for row in rows.values() for metric in row})
    if not columns:
        return ""
    lines = [[next(iter(rows))[0], *columns]]
    for (_, source), row in rows.items():
        lines.append([source, *(f"{row[name]:.4g}" if name in row else "-" for name in columns)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "  ".join([line[0].ljust(widths[0] + 1), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    ]
    return "\n".join(["", *map(on_screen, text)])
