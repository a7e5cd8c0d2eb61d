"""What the LightningModules share: hyperparameters, a metric for each evaluated source, and the TensorBoard pages."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torchmetrics import Metric

from lit_core.files.logged import ANSWERS
from lit_core.lightning.checkpoint_module import CheckpointModule
from lit_core.lightning.evaluation import log_reduced, named_loader
from lit_core.lightning.pictures import add_text
from lit_core.lightning.step_mean import StepMean
from lit_core.lightning.tensorboard import add_hparams, add_layout


class EvaluationTask(CheckpointModule):
    """Base of the LightningModules, which are evaluated on several named sources at once.

    A subclass defines `evaluate_batch`, which updates the metric of a source, and `source_values`, which computes it
    once all batches are seen. Each evaluation begins with new metrics, since the next one may have other sources, an
    interrupted one leaves its metrics incomplete, and a trainer in 16 bits rounds them.

    The loss that `step_loss` makes of those of the micro-batches is the mean over all that an optimizer step scores.

    Its hyperparameters are its arguments as plain data, whether the command line or Python builds it.

    Attributes:
        answers: Patterns of the keys that answer what a run is made for; in TensorBoard they stand first. A callback
            may have such patterns too.
    """

    metrics: nn.ModuleDict
    answers: Sequence[str] = ("train/loss",)

    def __init__(self) -> None:
        super().__init__()
        self.keep_arguments()
        self.metrics = nn.ModuleDict()
        self._step_mean = StepMean()

    @property
    def is_trained(self) -> bool:
        """Whether the optimizer changes the model, so that a finished fit can be continued; true unless overridden."""
        return True

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Replace NumPy's numbers by Python's, such as a rate from a sweep, so that the checkpoint is plain data."""
        for key, value in checkpoint.items():
            if key != "state_dict":
                checkpoint[key] = apply_to_collection(value, np.generic, lambda number: number.item())
        super().on_save_checkpoint(checkpoint)

    def evaluate_batch(self, stage: str, batch: Any, dataloader_idx: int) -> None:
        """Score a batch of a source.

        Args:
            stage: ``val`` or ``test``.
            batch: The batch.
            dataloader_idx: Index of its source.
        """
        raise NotImplementedError(f"{type(self).__name__} must define evaluate_batch.")

    def source_values(self, stage: str, source: str, metric: Metric) -> Mapping[str, Tensor | float]:
        """Return the values to log for a source at the end of an evaluation; empty if they are logged batch by batch.

        Args:
            stage: ``val`` or ``test``.
            source: Name of the source.
            metric: The metric of `source_metric`, updated by all batches.

        Returns:
            Values over all ranks, by name; the key is ``{stage}/{source}/{name}``.
        """
        return {}

    def source_metric(
        self, stage: str, dataloader_idx: int, kind: Callable[[torch.dtype], Metric], name: str = ""
    ) -> tuple[str, Metric]:
        """Return a metric of a source for this evaluation, made at its first batch.

        Args:
            stage: ``val`` or ``test``.
            dataloader_idx: Index of the source.
            kind: Makes the metric from a dtype: float64, or float32 where the device has no float64.
            name: Distinguishes several metrics of a source.

        Returns:
            The metric's key in ``metrics``, and the metric, on the module's device.
        """
        key = "_".join([stage, str(dataloader_idx), *([name] if name else [])])
        if key not in self.metrics:
            dtype = torch.float32 if self.device.type == "mps" else torch.float64  # MPS has no float64
            self.metrics[key] = kind(dtype).to(self.device)
        metric = self.metrics[key]
        assert isinstance(metric, Metric)
        return key, metric

    def show_run(self, charts: Mapping[str, Mapping[str, Sequence[str]]], about: Mapping[str, str]) -> None:
        """Tell TensorBoard what to show of a run, and what to look at; to be called in ``on_train_start``.

        Args:
            charts: Patterns of keys by chart by category, which stand before those of the callbacks.
            about: What to look at, by question.
        """
        trainer = self.trainer
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        config = next((one.hyperparameters() for one in callbacks if hasattr(one, "hyperparameters")), None)
        if config is None:  # of a run that no command started
            data = getattr(trainer, "datamodule", None)
            config = {"model": self.hparams, "data": data.hparams if data is not None else {}}
        add_layout(trainer, charts, first=True)
        add_hparams(trainer, config)
        if trainer.global_step == 0:
            about = {**about, "Which run is better?": "HPARAMS begins with the columns in which the runs differ."}
            lines = [f"{question}\n{textwrap.fill(answer, 66)}\n" for question, answer in about.items()]
            add_text(trainer, f"{ANSWERS}what_to_look_at", "\n".join(lines), 0)

    def step_loss(self, mean: Tensor, scored: Tensor) -> Tensor:
        """Return the loss of a micro-batch, to be returned by ``training_step``; see `StepMean`.

        Args:
            mean: Mean loss over the tokens or samples that the micro-batch scores, 0 if there are none.
            scored: Their number, an int64 scalar.
        """
        return self._step_mean.loss(self, mean, scored)

    def on_train_start(self) -> None:
        """Begin with a whole optimizer step."""
        self._step_mean = StepMean()

    def on_after_backward(self) -> None:
        """Make the gradients of a step those of the mean over all that it scores, before anything reads them."""
        self._step_mean.scale_gradients(self)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Score a batch of a validation source."""
        self.evaluate_batch("val", batch, dataloader_idx)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Score a batch of a test source."""
        self.evaluate_batch("test", batch, dataloader_idx)

    def on_validation_epoch_start(self) -> None:
        """Begin with new metrics."""
        self.metrics.clear()

    def on_test_epoch_start(self) -> None:
        """Begin with new metrics."""
        self.metrics.clear()

    def on_validation_epoch_end(self) -> None:
        """Log each validation source."""
        self._log_sources("val")

    def on_test_epoch_end(self) -> None:
        """Log each test source."""
        self._log_sources("test")

    def _log_sources(self, stage: str) -> None:
        # Lightning gives all ranks the same number of batches, so every rank has every source
        for key, metric in self.metrics.items():
            if key.startswith(f"{stage}_"):
                source = named_loader(self.trainer, stage, int(key.split("_")[1]))
                values = self.source_values(stage, source, metric)  # type: ignore[arg-type]
                log_reduced(self, {f"{stage}/{source}/{name}": value for name, value in values.items()})
