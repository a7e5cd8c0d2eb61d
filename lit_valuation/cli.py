"""The console command ``lit-valuation``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lit_core.cli.main import run
from lit_core.cli.verb import Verb

if TYPE_CHECKING:
    from lit_core.cli.lit_cli import LitCLI

VERBS = {
    "prepare": Verb("lit_valuation.commands.prepare", "prepare"),
    "divide": Verb("lit_valuation.commands.divide", "divide"),
    "query": Verb("lit_valuation.commands.query", "query"),
    "select": Verb("lit_valuation.commands.select", "select"),
    "rank": Verb("lit_valuation.commands.rank", "rank"),
    "study": Verb("lit_core.study.study", "study", "lit_valuation"),
    "configs": Verb("lit_core.cli.configs", "configs", "lit_valuation"),
    "show": Verb("lit_core.cli.show", "show"),
    "board": Verb("lit_core.board.board", "board"),
}


def main(args: Sequence[str] | None = None) -> int:
    """Run ``lit-valuation``.

    Args:
        args: The command line without the program's name; None takes the process's own.

    Returns:
        The exit code.
    """
    return run("lit-valuation", _commands, VERBS, args)


def _commands(args: list[str]) -> LitCLI:
    from lit_valuation.commands.lightning import commands

    return commands(args)
