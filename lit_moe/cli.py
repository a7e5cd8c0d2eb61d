"""The console command ``lit-moe``."""

from __future__ import annotations

from collections.abc import Sequence

from lit_core.cli import LitCLI, run
from lit_core.prepare import prepare
from lit_moe.data import TokenDataModule
from lit_moe.generate import generate
from lit_moe.module import MoELanguageModel


def main(args: Sequence[str] | None = None) -> int:
    """Run ``lit-moe``.

    Args:
        args: The command line without the program's name; None takes the process's own.

    Returns:
        The exit code.
    """
    return run("lit-moe", _commands, {"prepare": prepare, "generate": generate}, args)


def _commands(args: list[str]) -> LitCLI:
    links = {"data.vocab_size": "model.init_args.decoder.vocab_size"}
    return LitCLI("moe", MoELanguageModel, TokenDataModule, links, args)
