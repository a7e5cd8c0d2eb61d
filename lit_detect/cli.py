"""The console command ``lit-detect``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lit_core.cli.main import run
from lit_core.cli.verb import Verb

if TYPE_CHECKING:
    from lit_core.cli.lit_cli import LitCLI

VERBS = {
    "prepare": Verb("lit_detect.data.prepare", "prepare"),
    "generate": Verb("lit_detect.generation.generate", "generate"),
    "attack": Verb("lit_detect.commands.attack", "attack"),
    "calibrate": Verb("lit_detect.commands.calibrate", "calibrate"),
    "explain": Verb("lit_detect.commands.explain", "explain"),
    "serve": Verb("lit_detect.commands.serve", "serve"),
    "report": Verb("lit_detect.commands.report", "report"),
    "study": Verb("lit_core.study.study", "study", "lit_detect"),
    "configs": Verb("lit_core.cli.configs", "configs", "lit_detect"),
    "show": Verb("lit_core.cli.show", "show"),
    "board": Verb("lit_core.board.board", "board"),
}


def main(args: Sequence[str] | None = None) -> int:
    """Run ``lit-detect``.

    Args:
        args: The command line without the program's name; None takes the process's own.

    Returns:
        The exit code.
    """
    return run("lit-detect", _commands, VERBS, args)


def _commands(args: list[str]) -> LitCLI:
    from lit_detect.commands.lightning import commands

    return commands(args)
