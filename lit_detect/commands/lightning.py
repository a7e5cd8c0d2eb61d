"""Lightning's commands."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from lightning.pytorch import LightningDataModule

import lit_detect.attacks
import lit_detect.detectors
import lit_detect.formats  # noqa: F401  # all three so that short names are known
from lit_core.cli.lit_cli import LitCLI
from lit_core.files.text_files import with_compressions
from lit_detect.callbacks import PredictionWriter
from lit_detect.data.module import TextDataModule  # noqa: F401
from lit_detect.data.user_texts import listed_texts
from lit_detect.module import DetectorTask
from lit_detect.report.called import Called, called_lines, share


class DetectorCLI(LitCLI):
    """The shared command line: tests say who is called machine wrongly, predictions are a table in the run folder."""

    best: ClassVar = {"auroc": max, "loss": min}

    def answer(self) -> list[str]:
        """Return the lines of a test."""
        counts = getattr(self.model, "called_machine", {})
        rows = [Called(name, share(*of[:2]), share(*of[2:])) for name, of in counts.items()]
        return called_lines(rows) if rows else super().answer()

    def before_predict(self) -> None:
        """Add a `PredictionWriter` for ``predictions.csv``, or for ``predictions.jsonl`` if the input is JSONL."""
        callbacks: list[Any] = self.trainer.callbacks  # type: ignore[attr-defined]
        if self.run_folder is not None and not any(isinstance(callback, PredictionWriter) for callback in callbacks):
            names = listed_texts(getattr(self.datamodule, "predict", None) or "")
            lines = all(str(name).endswith(with_compressions(".jsonl")) for name in names)
            kind: Literal["csv", "jsonl"] = "jsonl" if lines else "csv"
            callbacks.append(PredictionWriter(self.run_folder, kind))


def commands(args: list[str]) -> LitCLI:
    """Run one of them.

    Args:
        args: The command line without the program's name.
    """
    return DetectorCLI("detect", DetectorTask, LightningDataModule, {}, args)
