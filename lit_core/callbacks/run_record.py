"""`RunRecord`, which saves the config of a run and writes each logged row with the checkpoint of its step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_warn

from lit_core.files.paths import atomic_write
from lit_core.lightning.internals import logged_step, pending_row
from lit_core.lightning.loggers import CSVLog, EventLog
from lit_core.references import resolved, without_secrets
from lit_core.seeds import seeds_of


class RunRecord(Callback):
    """Saves the config, gives it to the loggers, and writes each logged row with the checkpoint of its step.

    Lightning logs the row of a step after the checkpoint of that step is written; a kill between the two would lose the
    row. This callback writes the row with the checkpoint; `CSVLog` and `EventLog` do not write it a second time.

    Below the config it says which seed holds for what, in comments.

    Args:
        config: The config of the run as typed, with its references, as plain values; stored in each checkpoint under
            ``config``.
        path: Where the config is saved as YAML; None saves no file.
    """

    def __init__(self, config: dict[str, Any], path: str | Path | None = None) -> None:
        self.config = config
        self.path = None if path is None else Path(path)
        self._saved = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the config to the user's loggers as hyperparameters, before they save any."""
        for logger in trainer.loggers if trainer.is_global_zero else ():
            if not isinstance(logger, EventLog):
                try:
                    logger.log_hyperparams(self._hyperparameters())
                except Exception as error:  # of a service, such as MLflow's for a resumed run with another value
                    reason = " ".join(str(error).split())[:200]
                    rank_zero_warn(f"{type(logger).__name__} did not take the hyperparameters of this run: {reason}")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save the config after the first batch, when most of its errors would have been raised."""
        self._save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the config of ``validate``."""
        if trainer.state.fn == "validate":
            self._save(trainer)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the config of ``test``."""
        self._save(trainer)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the config of ``predict``."""
        self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        if self.path is not None and not self._saved and trainer.is_global_zero:
            seeds = "".join(f"#   {key}: {seed}\n" for key, seed in seeds_of(resolved(self.config)).items())
            text = yaml.safe_dump(self.config, sort_keys=False, allow_unicode=True)
            atomic_write(self.path, f"{text}# Seeds that hold, those of the parts by key:\n{seeds}")
            for logger in trainer.loggers if trainer.state.fn == "fit" else ():
                if isinstance(logger, EventLog):
                    logger.log_hyperparams(self._hyperparameters())
        self._saved = True

    def _hyperparameters(self) -> dict[str, Any]:
        return without_secrets(resolved(self.config), self.config)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Store the config in the checkpoint, and write all rows logged so far to the disk."""
        checkpoint["config"] = self.config
        for logger in trainer.loggers:
            if isinstance(logger, CSVLog | EventLog):
                self._write_pending_row(trainer, logger)
            if isinstance(logger, TensorBoardLogger):
                logger.save()

    @staticmethod
    def _write_pending_row(trainer: Trainer, logger: CSVLog | EventLog) -> None:
        metrics = pending_row(trainer)
        if metrics:
            metrics.setdefault("epoch", trainer.current_epoch)
            logger.log_metrics(metrics, logged_step(trainer))
