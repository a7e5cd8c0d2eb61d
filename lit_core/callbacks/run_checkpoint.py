"""When a run saves."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


class RunCheckpoint(ModelCheckpoint):
    """Saves every n optimizer steps and at the end; where a validation is due at that step, after it.

    A checkpoint written before a due validation would lose it on resume.

    Args:
        every_n_train_steps: Optimizer steps between checkpoints; 0 saves at the end of training only.
        save_top_k: How many of the step checkpoints to keep: -1 all, 1 the newest, 0 none beside ``last.ckpt``.
        dirpath: Folder of the checkpoints; None takes ``checkpoints`` in the run folder.
    """

    def __init__(self, every_n_train_steps: int = 0, save_top_k: int = 1, dirpath: str | None = None) -> None:
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
        self._after_validation = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the folder."""
        if self.dirpath is None:
            self.dirpath = f"{trainer.default_root_dir}/checkpoints"
        super().setup(trainer, pl_module, stage)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save, or wait for the validation that is due."""
        step = trainer.global_step
        if step == self._last_global_step_saved or step == 0:
            return
        if step != trainer.max_steps and (not self._every_n_train_steps or step % self._every_n_train_steps):
            return
        if validation_follows(trainer):
            self._after_validation = True
        else:
            self.save_now(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save what waited for this validation."""
        if self._after_validation and not trainer.sanity_checking:
            self._after_validation = False
            self.save_now(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the last step of a run that ended by epochs."""
        if self._last_global_step_saved != trainer.global_step:
            self.save_now(trainer)

    def save_now(self, trainer: Trainer) -> None:
        """Save ``last.ckpt``, and the step's own file where those are kept."""
        candidates = self._monitor_candidates(trainer)
        if self._every_n_train_steps:
            self._save_topk_checkpoint(trainer, candidates)
        self._save_last_checkpoint(trainer, candidates)


def validation_follows(trainer: Trainer) -> bool:
    """Tell, at the end of a training batch, whether a validation is due before the next one."""
    loop = trainer.fit_loop
    assert loop._data_fetcher is not None
    return bool(trainer.enable_validation and loop.epoch_loop._should_check_val_fx(loop._data_fetcher))
