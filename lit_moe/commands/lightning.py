"""Lightning's commands and ``plan``."""

from __future__ import annotations

from typing import ClassVar

import lit_moe.callbacks
import lit_moe.parallel.strategy
import lit_moe.schedules  # noqa: F401  # all three so that short names are known
from lit_core.cli.lit_cli import LitCLI
from lit_moe.commands.answer import answer
from lit_moe.commands.plan import PlanCLI
from lit_moe.data import TokenDataModule
from lit_moe.module import MoELanguageModel


class LanguageModelCLI(LitCLI):
    """The shared command line, whose tests say whether the model forgot and learnt, and whether its routers balance."""

    best: ClassVar = {"loss": min, "bits_per_byte": min}

    def answer(self) -> list[str]:
        """Return the lines that say it."""
        return answer(self)


def commands(args: list[str]) -> LitCLI:
    """Run one of them.

    Args:
        args: The command line without the program's name.
    """
    links = {"data.vocab_size": "model.init_args.decoder.vocab_size"}
    command = next(index for index, arg in enumerate(args) if not arg.startswith("-"))
    if args[command] == "plan":
        args = [*args[:command], "fit", *args[command + 1 :]]
        return PlanCLI("moe", MoELanguageModel, TokenDataModule, links, args)
    return LanguageModelCLI("moe", MoELanguageModel, TokenDataModule, links, args)
