"""The console command ``lit-moe``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lit_core.cli import LitCLI, configs_verb, run, show
from lit_core.lightning.sharded_checkpoint import consolidate
from lit_core.prepare import prepare
from lit_core.study import study_verb
from lit_moe.commands.generate import generate
from lit_moe.commands.plan import PlanCLI
from lit_moe.data import TokenDataModule
from lit_moe.interop import export_model, import_model
from lit_moe.interop.upcycle import upcycle
from lit_moe.module import MoELanguageModel
from lit_moe.plan.costs import plan


def main(args: Sequence[str] | None = None) -> int:
    """Run ``lit-moe``.

    Args:
        args: The command line without the program's name; None takes the process's own.

    Returns:
        The exit code.
    """
    verbs: dict[str, Callable[..., Any]] = {
        "prepare": prepare,
        "generate": generate,
        "import": import_model,
        "export": export_model,
        "upcycle": upcycle,
        "consolidate": consolidate,
        "study": study_verb("lit_moe"),
        "configs": configs_verb("lit_moe"),
        "show": show,
    }
    return run("lit-moe", _commands, verbs, args, like_fit={"plan": plan})


def _commands(args: list[str]) -> LitCLI:
    links = {"data.vocab_size": "model.init_args.decoder.vocab_size"}
    command = next(index for index, arg in enumerate(args) if not arg.startswith("-"))
    if args[command] == "plan":
        args = [*args[:command], "fit", *args[command + 1 :]]
        return PlanCLI("moe", MoELanguageModel, TokenDataModule, links, args)
    return LitCLI("moe", MoELanguageModel, TokenDataModule, links, args)
