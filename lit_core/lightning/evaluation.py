"""Evaluation of named sources: names of the loaders, logging of reduced values, and a base for evaluation callbacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor


def named_loader(trainer: Trainer, stage: str, dataloader_idx: int) -> str:
    """Return the name of an evaluation loader.

    Args:
        trainer: The trainer, in validation or test.
        stage: ``val`` or ``test``.
        dataloader_idx: The index that Lightning passes to the step.

    Returns:
        The key where the loaders are a dict, as in ``{"austen": loader}``; otherwise the index.
    """
    loaders = trainer.val_dataloaders if stage == "val" else trainer.test_dataloaders
    return list(loaders)[dataloader_idx] if isinstance(loaders, Mapping) else str(dataloader_idx)


def log_reduced(module: LightningModule, values: Mapping[str, Tensor | float]) -> None:
    """Log values that are already the same on all ranks, at the end of an evaluation.

    Lightning averages them over the ranks again, which changes nothing; otherwise it would warn about each key.

    Args:
        module: The module that logs.
        values: Values by key.
    """
    module.log_dict(dict(values), sync_dist=True)


class EvaluationCallback(Callback):
    """Base of callbacks that measure each source of a validation or test.

    A subclass defines three methods, which are called in this order; none is called in the sanity check.

    1. `start_evaluation`, before the first batch of the first source;
    2. `evaluate_batch`, after each batch of each source;
    3. `end_evaluation`, after the last batch of the last source. Lightning gives all ranks the same number of batches,
       so every rank has seen every source.
    """

    def start_evaluation(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Reset what is measured.

        Args:
            trainer: The trainer.
            pl_module: The module that is evaluated.
            stage: ``val`` or ``test``.
        """

    def evaluate_batch(
        self, trainer: Trainer, pl_module: LightningModule, stage: str, batch: Any, dataloader_idx: int
    ) -> None:
        """Measure a batch that the module has evaluated.

        Args:
            trainer: The trainer.
            pl_module: The module that is evaluated.
            stage: ``val`` or ``test``.
            batch: The batch.
            dataloader_idx: Index of its source; `named_loader` gives the name.
        """

    def end_evaluation(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Log each source.

        Args:
            trainer: The trainer.
            pl_module: The module that is evaluated.
            stage: ``val`` or ``test``.
        """

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Call `start_evaluation` for a validation."""
        if not trainer.sanity_checking:
            self.start_evaluation(trainer, pl_module, "val")

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Call `start_evaluation` for a test."""
        self.start_evaluation(trainer, pl_module, "test")

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Call `evaluate_batch` for a batch of a validation source."""
        if not trainer.sanity_checking:
            self.evaluate_batch(trainer, pl_module, "val", batch, dataloader_idx)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Call `evaluate_batch` for a batch of a test source."""
        self.evaluate_batch(trainer, pl_module, "test", batch, dataloader_idx)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Call `end_evaluation` for a validation."""
        if not trainer.sanity_checking:
            self.end_evaluation(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Call `end_evaluation` for a test."""
        self.end_evaluation(trainer, pl_module, "test")
