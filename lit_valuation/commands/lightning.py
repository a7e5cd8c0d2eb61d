"""Lightning's commands."""

from __future__ import annotations

from typing import ClassVar

from lightning.pytorch import LightningDataModule

from lit_core.cli.lit_cli import LitCLI
from lit_valuation.callbacks import PredictionTable
from lit_valuation.commands.answer import answer
from lit_valuation.data.module import OwnersDataModule  # noqa: F401  # so that its short name is known
from lit_valuation.module import ClassifierTask  # noqa: F401
from lit_valuation.multi_label import MultiLabelTask  # noqa: F401
from lit_valuation.regression import RegressionTask  # noqa: F401
from lit_valuation.tagging import TaggingTask  # noqa: F401
from lit_valuation.task import SampleTask


class ClassifierCLI(LitCLI):
    """The shared command line: tests stand beside those before the branch, and ``predict`` writes a table."""

    best: ClassVar = {"accuracy": max, "hard_accuracy": max, "f1_macro": max, "r2": max}
    unnamed_model = "lit_valuation.module.ClassifierTask"

    def answer(self) -> list[str]:
        """Return the lines of a test."""
        return answer(self)

    def before_predict(self) -> None:
        """Write ``predictions.csv``."""
        if self.run_folder is not None:
            self.trainer.callbacks.append(PredictionTable(self.run_folder / "predictions.csv"))  # type: ignore[attr-defined]


def commands(args: list[str]) -> LitCLI:
    """Run one of them.

    Args:
        args: The command line without the program's name.
    """
    links = {
        "data.classes": "model.init_args.classes",
        "data.input_shape": "model.init_args.input_shape",
    }
    return ClassifierCLI("valuation", SampleTask, LightningDataModule, links, args)
