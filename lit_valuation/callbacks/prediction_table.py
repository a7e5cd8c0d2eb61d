"""A table of a model's predictions, as CSV."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lit_core.errors import UserError
from lit_core.files.outputs import output_file
from lit_core.files.paths import atomic_write
from lit_core.files.tables import CsvWriter
from lit_core.lightning.step_logging import rows_of_all_ranks
from lit_valuation.samples import Target


class PredictionTable(Callback):
    """Writes a CSV with index, prediction and probabilities of each sample, sorted by index.

    Works on any LightningModule with ``classes``, the names of the classes, labels or target columns, whose
    ``predict_step`` returns a mapping with ``probabilities`` or ``values``, ``(batch, k)``, and perhaps ``index``
    ``(batch,)``. The column ``class`` has the most probable class; if the module's ``target`` is ``labels``, the column
    ``labels`` has those with a probability above 0.5, between semicolons. Values have no such column. If it is
    ``tags``, ``predict_step`` returns ``tags``, indices of shape ``(batch, length)`` with -100 at no token, and the
    column ``tags`` has their names, between blanks. The file has all devices' rows.

    Args:
        path: Path of the file, which is written whole or not at all. It must not exist.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._rows: list[tuple[Tensor, Tensor]] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check that the file can be written and the module names its classes.

        Raises:
            UserError: If the file exists, which only ``--overwrite`` replaces, or the classes have no names.
        """
        if stage != "predict":
            return
        output_file(self.path, "the table of predictions")
        if not hasattr(pl_module, "classes"):
            raise UserError(
                f"PredictionTable needs a module with `classes`, the names of the classes, which "
                f"{type(pl_module).__name__} does not have; give it the attribute, or leave the callback out."
            )

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
        classes, name = len(pl_module.classes), type(pl_module).__name__  # type: ignore[arg-type]
        key = {"values": "values", "tags": "tags"}.get(_target(pl_module), "probabilities")
        probabilities = outputs.get(key) if isinstance(outputs, Mapping) else None
        if key == "tags" and isinstance(probabilities, Tensor) and probabilities.ndim == 2:
            classes = probabilities.shape[1]  # of which there is one per token
        if not isinstance(probabilities, Tensor) or probabilities.shape[1:] != (classes,):
            raise UserError(
                f"PredictionTable needs a predict_step that returns a mapping with `{key}` of shape (batch, "
                f"{classes}), but that of {name} does not; return them, or leave the callback out."
            )
        index = outputs.get("index")
        if index is None:
            n_read = sum(len(rows) for rows, _ in self._rows)
            index = torch.arange(n_read, n_read + len(probabilities), device=probabilities.device)
            index = index * trainer.world_size + trainer.global_rank  # as Lightning's sampler divides the samples
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
        table = CsvWriter(text)
        target = _target(pl_module)
        named = {"class": ["class"], "labels": ["labels"], "tags": ["tags"]}.get(target, [])
        table.row(["index", *named, *(() if target == "tags" else classes)])
        for position in index.argsort().tolist():
            row = probabilities[position]
            if target == "tags":
                table.row([int(index[position]), " ".join(classes[tag] for tag in row.tolist() if tag >= 0)])
                continue
            predicted = [classes[int(row.argmax())]] if target == "class" else []
            if target == "labels":
                predicted = ["; ".join(name for name, p in zip(classes, row.tolist(), strict=True) if p > 0.5)]
            table.row([int(index[position]), *predicted, *(f"{value:.6g}" for value in row.tolist())])
        atomic_write(self.path, text.getvalue())


def _target(module: LightningModule) -> Target:
    target: Target = getattr(module, "target", "class")
    return target
