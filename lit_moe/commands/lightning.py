"""Lightning's commands and ``plan``."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import ClassVar

import lit_moe.callbacks
import lit_moe.schedules  # noqa: F401  # both so that short names are known
from lit_core.cli.lit_cli import LitCLI
from lit_core.lightning.later_weights import weights_come_later
from lit_moe.commands.answer import answer
from lit_moe.commands.plan import PlanCLI
from lit_moe.data import TokenDataModule
from lit_moe.module import MoELanguageModel
from lit_moe.parallel.strategy import ShardedStrategy


class LanguageModelCLI(LitCLI):
    """The shared command line, whose tests say whether the model forgot and learnt, and whether its routers balance."""

    best: ClassVar = {"loss": min, "bits_per_byte": min}

    def instantiate_classes(self) -> None:
        """Build all parts; a model whose weights come from files is built without them if they are to be divided."""
        with weights_come_later(self._reads_parts()):
            super().instantiate_classes()

    def _reads_parts(self) -> bool:
        config = self.config[self.subcommand]
        strategy = getattr(config.trainer.strategy, "class_path", None)
        if strategy is None or not issubclass(resolve_name(strategy), ShardedStrategy):
            return False
        pretrained = (config.get("model.init_args.hugging_face") or {}).get("model")
        return any((pretrained, config.get("ckpt_path"), config.get("branch_from")))

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
