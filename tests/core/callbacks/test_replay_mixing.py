import math

import pytest
import torch
from lightning.pytorch import Callback
from torch.utils.data import DataLoader

from lit_core.callbacks import LinearReplay, ReplayMixing
from lit_core.data import ResumeStream
from lit_core.errors import UserError


class Drawn(Callback):
    """Keeps the sources of each batch that training really got."""

    def __init__(self):
        self.batches = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.batches.append(batch["source"].tolist())

    def of_step(self, step):
        return [source for batch in self.batches[4 * step : 4 * step + 4] for source in batch]


@pytest.mark.parametrize("fraction", [0.3, 0.0, 1.0, LinearReplay(0.0, 0.5, 5)])
def test_what_is_logged_is_what_was_drawn(byte_model, byte_data, make_trainer, read_metrics, fraction):
    drawn = Drawn()
    trainer = make_trainer(ReplayMixing(fraction), drawn, max_steps=10, limit_val_batches=0)
    data = byte_data()
    trainer.fit(byte_model(), datamodule=data)
    metrics = read_metrics()
    seen = {"new": 0, "old": 0}
    for step in range(10):
        counts = {"new": drawn.of_step(step).count(0), "old": drawn.of_step(step).count(1)}
        assert dict(metrics["train/replay_fraction"])[step] == pytest.approx(counts["old"] / 8)
        for name in seen:
            seen[name] += counts[name]
            assert dict(metrics[f"train/{name}/fraction"])[step] == pytest.approx(counts[name] / 8)
            for counter in ("samples", "tokens", "epochs"):  # a run that does not branch is all the weights' life
                assert metrics[f"train/{name}/{counter}"] == metrics[f"train/{name}/lifetime_{counter}"]
            assert dict(metrics[f"train/{name}/samples"])[step] == seen[name]
            assert dict(metrics[f"train/{name}/tokens"])[step] == seen[name] * 16
            size = len(data.stream.sources[name])
            assert dict(metrics[f"train/{name}/epochs"])[step] == pytest.approx(seen[name] / size)


def test_a_constant_fraction_is_met_to_one_sample(byte_model, byte_data, make_trainer, read_metrics):
    trainer = make_trainer(ReplayMixing(0.3), max_steps=9, limit_val_batches=0)
    trainer.fit(byte_model(), datamodule=byte_data())
    for step, samples in read_metrics()["train/old/samples"]:
        assert abs(samples - 0.3 * 8 * (step + 1)) <= 0.5


def test_a_schedule_follows_the_step():
    schedule = LinearReplay(0.5, 0.1, 4)
    assert [schedule(step) for step in range(6)] == pytest.approx([0.5, 0.4, 0.3, 0.2, 0.1, 0.1])


def test_counts_go_on_after_a_resume(byte_model, byte_data, make_trainer, read_metrics, tmp_path):
    def run(name, steps, ckpt_path=None):
        trainer = make_trainer(ReplayMixing(0.3), name=name, max_steps=steps, limit_val_batches=0)
        trainer.fit(byte_model(), datamodule=byte_data(), ckpt_path=ckpt_path, weights_only=True)
        return trainer

    run("whole", 6)
    run("first", 3).save_checkpoint(tmp_path / "stopped.ckpt")
    run("second", 6, tmp_path / "stopped.ckpt")
    whole, rest = read_metrics("whole"), read_metrics("second")
    for key in ("train/old/samples", "train/new/tokens", "train/replay_fraction"):
        assert rest[key] == whole[key][3:]


def former(state):
    """A state as the first checkpoints kept it."""
    return {key: value for key, value in state.items() if key not in ("begun", "earlier_tokens")}


@pytest.mark.parametrize("written", [dict, former], ids=["today", "before"])
@pytest.mark.parametrize("length", [16, None])
def test_sources_that_only_earlier_runs_read_are_in_the_life_of_the_weights(
    byte_model, byte_data, make_trainer, read_metrics, tmp_path, length, written
):
    known = {"samples": 9, "length": length, "content": "x"}
    parent = {"step": 2, "consumed": {"gone": 7, "old": 9}, "begun": {"gone": 3}, "earlier_tokens": {"gone": 5}}
    parent |= {"global_batch_size": 8, "seed": 0, "batches_per_step": 4, "order": 2, "samples": {"gone": 9}}
    parent["sources"] = {"gone": known}
    resume = ResumeStream()
    resume.branch(parent["consumed"], written(parent))
    trainer = make_trainer(callbacks=[resume, ReplayMixing(0.5)], name="branch", max_steps=1, limit_val_batches=0)
    trainer.fit(byte_model(), datamodule=byte_data())
    path = tmp_path / "branch.ckpt"
    trainer.save_checkpoint(path)
    saved = torch.load(path, weights_only=True)
    saved["callbacks"]["ResumeStream"] = written(saved["callbacks"]["ResumeStream"])
    torch.save(saved, path)
    trainer = make_trainer(ReplayMixing(0.5), name="rest", max_steps=2, limit_val_batches=0)
    trainer.fit(byte_model(), datamodule=byte_data(), ckpt_path=path, weights_only=True)
    for name, steps in (("branch", 1), ("rest", 2)):
        last = {key: dict(values)[steps - 1] for key, values in read_metrics(name).items()}
        assert last["train/new/samples"] == last["train/old/samples"] == steps * 4
        assert last["train/new/tokens"] + last["train/old/tokens"] == steps * 8 * 16
        assert last["train/old/lifetime_tokens"] == (9 + steps * 4) * 16
        gone = 5 + 4 * 16 if written is dict else 7 * 16
        if length is None or (written is former and name == "rest"):  # nothing tells it
            gone = math.nan
        assert last["train/gone/lifetime_tokens"] == pytest.approx(gone, nan_ok=True)
        parts = sum(last[f"train/{source}/lifetime_tokens"] for source in ("new", "old", "gone"))
        assert last["train/lifetime_tokens"] == pytest.approx(parts, nan_ok=True)


@pytest.mark.parametrize("make", [lambda: ReplayMixing(1.5), lambda: ReplayMixing(-0.1), lambda: LinearReplay(0, 2, 5)])
def test_a_fraction_outside_0_and_1_is_refused(make):
    with pytest.raises(UserError, match="from 0 to 1"):
        make()


def test_another_loader_is_refused(byte_model, byte_data, make_trainer):
    source = byte_data().sources(8)["new"]
    loader = DataLoader([source[index] for index in range(8)], batch_size=2)
    with pytest.raises(UserError, match="MixtureStream"):
        make_trainer(ReplayMixing(0.3)).fit(byte_model(), loader)


def test_nothing_to_replay_is_refused(byte_model, byte_data, make_trainer):
    with pytest.raises(UserError, match="replay"):
        make_trainer(ReplayMixing(0.3)).fit(byte_model(), datamodule=byte_data(replay=False))


def test_training_is_not_changed_by_logging(byte_model, byte_data, make_trainer):
    weights = []
    for name, every in (("each", 1), ("none", 0)):
        model = byte_model()
        trainer = make_trainer(ReplayMixing(0.3), name=name, log_every_n_steps=every, limit_val_batches=0)
        trainer.fit(model, datamodule=byte_data())
        weights.append(torch.cat([parameter.flatten() for parameter in model.parameters()]))
    assert torch.equal(*weights)
