"""What a classifier predicts, as a table."""

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
    """Writes a CSV with the number, the predicted class and the probabilities of each sample, in order.

    Works on any LightningModule with ``classes``, names by number, whose ``predict_step`` returns a mapping with
    ``probabilities`` ``(batch, classes)`` and ``index`` ``(batch,)`` or None. All devices' rows come into one file.

    Args:
        path: The file; written whole or not at all.
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
        """Keep a batch."""
        probabilities, index = outputs["probabilities"], outputs["index"]
        if index is None:
            read = sum(len(numbers) for numbers, _ in self._rows)
            index = torch.arange(read, read + len(probabilities), device=probabilities.device)
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
        for place in index.argsort().tolist():
            row = probabilities[place]
            table.writerow([int(index[place]), classes[int(row.argmax())], *(f"{value:.6g}" for value in row.tolist())])
        atomic_write(self.path, text.getvalue())
