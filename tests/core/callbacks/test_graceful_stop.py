import csv
import signal

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.demos.boring_classes import BoringDataModule, BoringModel
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_core.callbacks import GracefulStop, RunCheckpoint, RunRecord, Stopped
from lit_core.data import ResumeStream
from lit_core.loggers import run_loggers


class Model(BoringModel):
    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)["loss"]
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val/loss", super().validation_step(batch, batch_idx)["x"])


class Signal(Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            signal.raise_signal(signal.SIGTERM)


def fit(folder, *callbacks, resume_step=None, ckpt_path=None):
    torch.manual_seed(0)
    trainer = Trainer(
        default_root_dir=folder,
        logger=run_loggers(folder, resume_step),
        callbacks=[GracefulStop(), ResumeStream(), RunRecord({}), RunCheckpoint(), *callbacks],
        max_steps=8,
        val_check_interval=4,
        limit_val_batches=2,
        log_every_n_steps=1,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Model(), BoringDataModule(), ckpt_path=ckpt_path)


def steps(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return [(row["step"], bool(row["train/loss"]), bool(row["val/loss"])) for row in csv.DictReader(file)]


@pytest.mark.parametrize("step", [2, 3])
def test_a_stop_loses_no_row_even_where_a_validation_is_due(tmp_path, step):
    """The fourth step, number 3, is followed by a validation."""
    fit(tmp_path / "whole")
    with pytest.raises(Stopped):
        fit(tmp_path / "stopped", Signal(step))
    last = tmp_path / "stopped" / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == step + 1
    fit(tmp_path / "stopped", resume_step=step + 1, ckpt_path=last)
    assert steps(tmp_path / "stopped") == steps(tmp_path / "whole")
    assert len(steps(tmp_path / "whole")) == 8 + 2
    shown = EventAccumulator(str(tmp_path / "stopped")).Reload()
    assert [event.step for event in shown.Scalars("train/loss")] == list(range(8))
    assert [event.step for event in shown.Scalars("val/loss")] == [3, 7]
