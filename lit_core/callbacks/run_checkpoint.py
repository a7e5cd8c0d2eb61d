"""`RunCheckpoint`, which saves every n optimizer steps; if a validation is due at the step, after the validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, WeightAveraging

from lit_core.errors import Stopped
from lit_core.lightning.internals import last_saved_step, save_files, validation_follows


class RunCheckpoint(ModelCheckpoint):
    """Saves every n optimizer steps and at the end of training.

    If a validation is due at the step, it saves after the validation, which a run resumed from an earlier checkpoint
    would skip. It also ends a run that a signal stopped, since all other callbacks have then seen the step and the
    validation.

    Args:
        every_n_train_steps: Optimizer steps between checkpoints; 0 saves at the end of training only.
        save_top_k: How many of the step checkpoints to keep: -1 all, 1 the newest, 0 none beside ``last.ckpt``.
        dirpath: Folder of the checkpoints; None takes ``checkpoints`` in the run folder.

    Attributes:
        stopped_by: Signal that requests to save and stop at this step, after a due validation; 0 for none.
    """

    def __init__(self, every_n_train_steps: int = 0, save_top_k: int = 1, dirpath: str | Path | None = None) -> None:
        super().__init__(
            dirpath=dirpath,
            filename="step={step}",
            auto_insert_metric_name=False,  # metric keys have slashes, which would make folders
            save_last=True,
            save_top_k=save_top_k,
            every_n_train_steps=every_n_train_steps or None,
            every_n_epochs=None if every_n_train_steps else 0,
            save_on_train_epoch_end=False,
            enable_version_counter=False,
        )
        self._every = every_n_train_steps
        self._after_validation = False
        self.stopped_by = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Set the folder of the checkpoints."""
        self.stopped_by = 0
        if self.dirpath is None:
            self.dirpath = f"{trainer.default_root_dir}/checkpoints"
        super().setup(trainer, pl_module, stage)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save, or wait for the validation that is due."""
        step = trainer.global_step
        due = step not in (0, last_saved_step(self))
        due = due and (step == trainer.max_steps or bool(self._every and step % self._every == 0))
        validates = (due or self.stopped_by) and validation_follows(trainer)
        self._after_validation = bool(due and validates)
        if self.stopped_by or (due and not validates):
            self.save_now(trainer)
        if self.stopped_by and not validates:
            raise Stopped(self.stopped_by, saved=True)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save if a due checkpoint or a stop waited for this validation."""
        if trainer.sanity_checking or not (self._after_validation or self.stopped_by):
            return
        self._after_validation = False
        self.save_now(trainer)
        if self.stopped_by:
            raise Stopped(self.stopped_by, saved=True)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the last step of a run that ends with this epoch, before averaged weights take the place of its own."""
        averages = any(isinstance(other, WeightAveraging) for other in trainer.callbacks)  # type: ignore[attr-defined]
        if averages and trainer.fit_loop.done and last_saved_step(self) != trainer.global_step:
            self.save_now(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the last step if it is not saved yet, as in a run limited by epochs."""
        if last_saved_step(self) != trainer.global_step:
            self.save_now(trainer)

    def save_now(self, trainer: Trainer) -> None:
        """Save ``last.ckpt``, and the step's own file if `every_n_train_steps` is not 0."""
        save_files(self, trainer, step_file=self._every > 0)
        former = Path(trainer.ckpt_path or "").absolute()
        others = (Path(self.best_model_path), Path(self.last_model_path))
        is_own = former.parent == Path(str(self.dirpath)).absolute() and former.name.startswith("step=")
        if self.save_top_k == 1 and is_own and former not in [other.absolute() for other in others]:
            trainer.strategy.remove_checkpoint(former)  # Lightning keeps the file from which a run is resumed
