"""The console command ``lit-moe``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lit_core.cli.main import run
from lit_core.cli.verb import Verb

if TYPE_CHECKING:
    from lit_core.cli.lit_cli import LitCLI

VERBS = {
    "prepare": Verb("lit_core.prepare", "prepare"),
    "generate": Verb("lit_moe.commands.generate", "generate"),
    "import": Verb("lit_moe.interop.importing", "import_model"),
    "export": Verb("lit_moe.interop.exporting", "export_model"),
    "upcycle": Verb("lit_moe.interop.upcycle", "upcycle"),
    "grow": Verb("lit_moe.interop.grow", "grow"),
    "fingerprint": Verb("lit_moe.commands.fingerprint", "fingerprint"),
    "drift": Verb("lit_moe.commands.drift", "drift"),
    "doctor": Verb("lit_moe.commands.doctor", "doctor"),
    "consolidate": Verb("lit_core.lightning.sharded_checkpoint", "consolidate"),
    "study": Verb("lit_core.study.study", "study", "lit_moe"),
    "configs": Verb("lit_core.cli.configs", "configs", "lit_moe"),
    "show": Verb("lit_core.cli.show", "show"),
    "board": Verb("lit_core.board.board", "board"),
}
LIKE_FIT = {"plan": Verb("lit_moe.plan.costs", "plan")}


def main(args: Sequence[str] | None = None) -> int:
    """Run ``lit-moe``.

    Args:
        args: The command line without the program's name; None takes the process's own.

    Returns:
        The exit code.
    """
    return run("lit-moe", _commands, VERBS, args, LIKE_FIT)


def _commands(args: list[str]) -> LitCLI:
    from lit_moe.commands.lightning import commands

    return commands(args)
