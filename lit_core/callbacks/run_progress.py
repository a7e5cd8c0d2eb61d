"""`RunProgress`, the progress bar of Lightning's commands: one bar over a whole training."""

from __future__ import annotations

import math
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar

from lit_core.lightning.evaluation import named_loader
from lit_core.screen import on_screen, progress_bar


class RunProgress(TQDMProgressBar):
    """Shows one bar over all steps of a training, and one per source of an evaluation, with the time left.

    Beside it stand the values that the module logs with ``prog_bar=True``, such as loss and tokens per second; samples
    per second where the module logs no speed. A training limited by epochs is counted in batches. Where standard error
    is no terminal, a plain line a minute takes the place of the bar.
    """

    _samples = 0.0

    def init_sanity_tqdm(self) -> Any:
        """Return the bar of the validation that tries out whether there is one."""
        return self._bar("Trying out validation", " batches")

    def init_train_tqdm(self) -> Any:
        """Return the bar of the training."""
        by_steps = self.trainer.max_steps > 0
        done = self.trainer.global_step if by_steps else self._batches_done
        size = getattr(getattr(self.trainer, "datamodule", None), "global_batch_size", 0)
        self._samples = size if by_steps else size / self.trainer.accumulate_grad_batches
        return self._bar("Training", " steps" if by_steps else " batches", initial=done, with_rate=False, smoothing=0)

    def init_validation_tqdm(self) -> Any:
        """Return the bar of a validation, which stands below that of the training."""
        return self._bar("Validation", " batches", position=int(self.trainer.state.fn == "fit"))

    def init_test_tqdm(self) -> Any:
        """Return the bar of a test."""
        return self._bar("Test", " batches")

    def init_predict_tqdm(self) -> Any:
        """Return the bar of a prediction."""
        return self._bar("Prediction", " batches")

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        """Set the total, which a callback that replaces the training data may have changed."""
        if trainer.max_steps > 0:
            total: float = trainer.max_steps
        else:
            epochs = math.inf if trainer.max_epochs in (None, -1) else trainer.max_epochs
            total = self._batches_done + (epochs - trainer.current_epoch) * self.total_train_batches
        self.train_progress_bar.total = total if math.isfinite(total) else None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance the bar."""
        bar = self.train_progress_bar
        if bar.disable:  # as on further ranks; such a bar does not even know where it began
            return
        bar.set_postfix_str(self._beside(trainer, bar), refresh=False)
        bar.update((trainer.global_step if trainer.max_steps > 0 else self._batches_done) - bar.n)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do nothing: the bar goes on."""

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Begin with a source."""
        super().on_validation_batch_start(trainer, pl_module, batch, batch_idx, dataloader_idx)
        if batch_idx == 0:
            what = "Trying out validation" if trainer.sanity_checking else "Validation"
            self._name(self.val_progress_bar, f"{what}, {named_loader(trainer, 'val', dataloader_idx)}")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove the bar of the validation."""
        self.val_progress_bar.close()
        self.reset_dataloader_idx_tracker()

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Begin with a source."""
        super().on_test_batch_start(trainer, pl_module, batch, batch_idx, dataloader_idx)
        if batch_idx == 0:
            self._name(self.test_progress_bar, f"Test, {named_loader(trainer, 'test', dataloader_idx)}")

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Begin with a loader."""
        super().on_predict_batch_start(trainer, pl_module, batch, batch_idx, dataloader_idx)
        if batch_idx == 0:
            self._name(self.predict_progress_bar, "Prediction")

    @property
    def _batches_done(self) -> int:
        return self.trainer.fit_loop.total_batch_idx + 1

    def _bar(self, desc: str, unit: str, **options: Any) -> Any:
        return progress_bar(desc=desc, unit=unit, shown=self.is_enabled, **options)

    @staticmethod
    def _name(bar: Any, text: str) -> None:
        bar.set_description(on_screen(text))

    def _beside(self, trainer: Trainer, bar: Any) -> str:
        """Return the logged values by the last part of their keys, and the speed."""
        values = {key.split("/")[-1]: value for key, value in trainer.progress_bar_metrics.items()}
        tokens, shown = values.pop("tokens_per_second", None), bar.format_dict
        texts = [f"{name} {float(value):.4g}" for name, value in values.items()]
        if tokens is not None:
            texts.append(f"{float(tokens):,.0f} tokens/s")
        elif self._samples and shown["n"] > bar.initial:
            samples = self._samples * (shown["n"] - bar.initial)
            texts.append(f"{samples / shown['elapsed']:,.0f} samples/s")
        return on_screen(", ".join(texts))
