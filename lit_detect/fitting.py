"""Fitting a detector that needs no gradients: gather one epoch of features or scores, then fit."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lit_core.data import ShardStream, StreamLoader
from lit_core.errors import UserError
from lit_core.lightning.step_logging import rows_of_all_ranks
from lit_detect.detectors import Detector, FeatureDetector
from lit_detect.functional.calibration import Platt, check_rising, fit_platt


class TrainingSetFit:
    """Fits a detector to a whole training set, of which it is given one micro-batch after the other.

    1. `add` computes the features of a micro-batch, or the scores of a zero-shot detector, and stores them with the
       labels and the indices in the set.
    2. At the last micro-batch of the first epoch, the rows of all ranks are sorted by index, so that neither the number
       of devices nor the order of the stream changes the result.
    3. A `FeatureDetector` is fitted to them. For any other detector a logistic map from scores to probabilities is
       fitted and returned.

    Rows hold the index, the label and the values, float64 of shape ``(n, 2 + values)``.
    """

    def __init__(self) -> None:
        self._rows: list[Tensor] = []
        self._micro_batches = 0

    @property
    def is_underway(self) -> bool:
        """Whether rows were gathered that nothing has been fitted to yet."""
        return bool(self._rows)

    def begin_step(self) -> None:
        """Start to count the micro-batches of an optimizer step."""
        self._micro_batches = 0

    def add(self, trainer: Trainer, detector: Detector, batch: Any) -> Platt | None:
        """Store the features or scores of a micro-batch; at the last one of the first epoch, fit.

        Args:
            trainer: The trainer, whose training loader streams the set.
            detector: The detector.
            batch: Mapping with ``text``, ``y`` and ``index``.

        Returns:
            The map from scores to probabilities, where it was fitted at this micro-batch.

        Raises:
            UserError: If the loader is no stream of a finite set, or the scores of machine texts are not higher.
        """
        self._micro_batches += 1
        loader = trainer.train_dataloader
        if not isinstance(loader, StreamLoader):
            raise UserError(f"{detector.name} is fitted to a whole training set; train it on a TextDataModule.")
        stream = loader.stream
        assert isinstance(stream, ShardStream)
        size = sum(map(len, stream.sources.values()))
        if trainer.global_step * stream.global_batch_size >= size:  # a further epoch
            return None
        self._rows.append(_rows(detector, batch, stream, size))
        is_last_step = (trainer.global_step + 1) * stream.global_batch_size >= size
        if self._micro_batches < stream.accumulation or not is_last_step:
            return None
        rows = self.rows_of_all_ranks(trainer)
        self._rows = []
        return _fit(detector, rows[rows[:, 0].argsort()])

    def rows_of_all_ranks(self, trainer: Trainer) -> Tensor:
        """Return the rows that all ranks have gathered, for a checkpoint."""
        return rows_of_all_ranks(trainer, torch.cat(self._rows))

    def resume(self, rows: Tensor) -> None:
        """Continue from the rows of a checkpoint; only one rank may, since they are those of all ranks."""
        self._rows = [rows]


def _rows(detector: Detector, batch: Any, stream: ShardStream, size: int) -> Tensor:
    texts = batch["text"]
    values = detector.features(texts) if isinstance(detector, FeatureDetector) else detector.score(texts)[:, None]
    (name,) = stream.names
    index = torch.tensor([stream.sample_index(name, running) for running in batch["index"].tolist()])
    columns = [index[:, None].double(), batch["y"].cpu()[:, None].double(), values.double()]
    is_first_epoch = (batch["index"] < size).cpu()  # the last batch is filled up with samples of the next epoch
    return torch.cat(columns, dim=1)[is_first_epoch]


def _fit(detector: Detector, rows: Tensor) -> Platt | None:
    labels, values = rows[:, 1].long(), rows[:, 2:]
    if isinstance(detector, FeatureDetector):
        detector.fit_features(values, labels)
        return None
    platt = fit_platt(values[:, 0], labels)
    check_rising(platt, detector.name, "train another detector, or on texts of another generator")
    return platt
