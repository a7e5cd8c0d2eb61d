"""A table of a classifier's predictions, as CSV."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lit_core.files.paths import atomic_write
from lit_core.lightning.step_logging import rows_of_all_ranks


class PredictionTable(Callback):
    """Writes a CSV with index, predicted class and probabilities of each sample, sorted by index.

    Works on any LightningModule with ``classes``, the names of the classes, whose ``predict_step`` returns a mapping
    with ``probabilities`` ``(batch, classes)`` and ``index`` ``(batch,)`` or None. The file has all devices' rows.

    Args:
        path: Path of the file, which is written whole or not at all.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._rows: list[tuple[Tensor, Tensor]] = []

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Store the predictions of a batch."""
        probabilities, index = outputs["probabilities"], outputs["index"]
        if index is None:
            n_read = sum(len(rows) for rows, _ in self._rows)
            index = torch.arange(n_read, n_read + len(probabilities), device=probabilities.device)
        self._rows.append((index, probabilities))

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the table on rank 0."""
        rows, self._rows = self._rows, []
        classes: tuple[str, ...] = tuple(pl_module.classes)  # type: ignore[arg-type]
        index, probabilities = (torch.cat(column) for column in zip(*rows, strict=True))
        index, probabilities = rows_of_all_ranks(trainer, index), rows_of_all_ranks(trainer, probabilities)
        if not trainer.is_global_zero:
            return
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["index", "class", *classes])
        for position in index.argsort().tolist():
            row = probabilities[position]
            table.writerow(
                [int(index[position]), classes[int(row.argmax())], *(f"{value:.6g}" for value in row.tolist())]
            )
        atomic_write(self.path, text.getvalue())
