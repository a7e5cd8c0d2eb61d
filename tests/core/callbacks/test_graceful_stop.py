import contextlib
import csv
import gc
import signal

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.demos.boring_classes import BoringDataModule, BoringModel
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lit_core.callbacks import GracefulStop, RunCheckpoint, RunRecord, Stopped
from lit_core.data import ResumeStream
from lit_core.lightning.loggers import run_loggers


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


def fit(folder, *callbacks, resume_step=None, ckpt_path=None, model=None, saves=True):
    torch.manual_seed(0)
    own = [ResumeStream(), RunRecord({}), *([RunCheckpoint()] if saves else [])]
    own += [] if any(isinstance(callback, GracefulStop) for callback in callbacks) else [GracefulStop()]
    trainer = Trainer(
        default_root_dir=folder,
        logger=run_loggers(folder, resume_step),
        enable_checkpointing=saves,
        callbacks=[*own, *callbacks],
        max_steps=8,
        val_check_interval=4,
        limit_val_batches=2,
        log_every_n_steps=1,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model or Model(), BoringDataModule(), ckpt_path=ckpt_path)


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
    shown = EventAccumulator(
        str(tmp_path / "stopped")
    ).Reload()  # which reads the tenth file of a second before the ninth
    assert sorted(event.step for event in shown.Scalars("train/loss")) == list(range(8))
    assert sorted(event.step for event in shown.Scalars("val/loss")) == [3, 7]


class Fail(Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        raise KeyError("failed")


@pytest.mark.parametrize("end", [(), (Signal(2),), (Fail(),)], ids=["done", "stopped", "failed"])
def test_the_signals_are_given_back(tmp_path, end):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with contextlib.suppress(Stopped, KeyError):
        fit(tmp_path, *end)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_nothing_of_a_run_is_kept(tmp_path):
    class Ours(Model):
        pass

    fit(tmp_path, model=Ours())
    gc.collect()
    assert not [found for found in gc.get_objects() if type(found) is Ours]


class Count(Callback):
    """Counts what it has seen."""

    def __init__(self):
        self.seen = {"steps": 0, "validations": 0}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen["steps"] += 1

    def on_validation_end(self, trainer, pl_module):
        self.seen["validations"] += not trainer.sanity_checking

    def state_dict(self):
        return dict(self.seen)


@pytest.mark.parametrize(("step", "validations"), [(2, 0), (3, 1)])
def test_a_stop_waits_for_what_other_callbacks_do_at_the_step(tmp_path, step, validations):
    patience = EarlyStopping("val/loss", patience=9, mode="max", min_delta=1e9, check_on_train_epoch_end=False)
    with pytest.raises(Stopped) as stopped:
        fit(tmp_path, Signal(step), Count(), patience)
    assert stopped.value.saved
    callbacks = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"]
    assert callbacks["Count"] == {"steps": step + 1, "validations": validations}
    [state] = [state for name, state in callbacks.items() if name.startswith("EarlyStopping")]
    assert torch.isfinite(torch.as_tensor(state["best_score"])) == bool(validations)


@pytest.mark.parametrize("step", [2, 3])
def test_a_stop_without_checkpoints_says_so(tmp_path, step):
    with pytest.raises(Stopped) as stopped:
        fit(tmp_path, Signal(step), saves=False)
    assert not stopped.value.saved and not (tmp_path / "checkpoints").exists()


def test_the_next_run_of_the_same_callback_is_not_stopped(tmp_path):
    stop = GracefulStop()
    with pytest.raises(Stopped):
        fit(tmp_path, Signal(2), stop)
    fit(tmp_path, stop, resume_step=3, ckpt_path=tmp_path / "checkpoints" / "last.ckpt")
    assert steps(tmp_path)[-1][0] == "7"


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGHUP])
def test_signals_that_come_together_are_one_and_a_later_one_ends_at_once(second, monkeypatch):
    now, raised = [100.0], []
    stop = GracefulStop()
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr("signal.signal", lambda signum, handler: None)
    monkeypatch.setattr("signal.raise_signal", raised.append)
    stop._handle(signal.SIGTERM, None)
    now[0] += 0.5
    stop._handle(second, None)
    assert stop._received == signal.SIGTERM and not raised
    now[0] += 1.0
    stop._handle(second, None)
    assert raised == [second]
