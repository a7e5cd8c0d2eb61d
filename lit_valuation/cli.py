"""The console command ``lit-valuation``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lightning.pytorch import LightningDataModule

from lit_core.cli import LitCLI, configs_verb, run, show
from lit_core.files.outputs import output_file
from lit_core.study import study_verb
from lit_valuation.callbacks import PredictionTable
from lit_valuation.commands.prepare import prepare
from lit_valuation.commands.query import query
from lit_valuation.commands.rank import rank
from lit_valuation.commands.select import select
from lit_valuation.data.module import OwnersDataModule  # noqa: F401  # so that its short name is known
from lit_valuation.module import ClassifierTask


def main(args: Sequence[str] | None = None) -> int:
    """Run ``lit-valuation``.

    Args:
        args: The command line without the program's name; None takes that of the process.

    Returns:
        The exit code.
    """
    verbs: dict[str, Callable[..., Any]] = {
        "prepare": prepare,
        "query": query,
        "select": select,
        "rank": rank,
        "study": study_verb("lit_valuation"),
        "configs": configs_verb("lit_valuation"),
        "show": show,
    }
    return run("lit-valuation", _commands, verbs, args)


class ClassifierCLI(LitCLI):
    """The shared command line, whose ``predict`` writes a table into the run folder."""

    def before_predict(self) -> None:
        """Write ``predictions.csv``."""
        if self.run_folder is not None:
            path = output_file(self.run_folder / "predictions.csv", "the table of --run")
            self.trainer.callbacks.append(PredictionTable(path))  # type: ignore[attr-defined]


def _commands(args: list[str]) -> LitCLI:
    links = {
        "data.classes": "model.init_args.classes",
        "data.input_shape": "model.init_args.input_shape",
    }
    return ClassifierCLI("valuation", ClassifierTask, LightningDataModule, links, args)
