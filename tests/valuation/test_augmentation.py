"""Augmentation changes what the network is trained on, each sample by itself, and nothing else."""

from functools import partial

import pytest
import torch
from torch import nn

from lit_core.errors import UserError
from lit_valuation import ClassifierTask
from lit_valuation.cli import main
from lit_valuation.commands.prepare import prepare
from lit_valuation.nn import MLP
from lit_valuation.samples import Samples
from lit_valuation.sources import Digits
from lit_valuation.training.loading import load_task
from lit_valuation.training.retrain import TrainingRecipe, predict_logits, retrain
from lit_valuation.training.retrain_many import retrain_many


class Inverted(nn.Module):
    """A transform without chance, so that training on its results is known otherwise."""

    def forward(self, x):
        assert x.ndim == 3 and x.dtype == torch.float32
        return 1 - x


class Noise(nn.Module):
    """A transform that draws for each sample."""

    def forward(self, x):
        return (x + 0.3 * torch.randn(())).clamp(0, 1)


class Cropped(nn.Module):
    def forward(self, x):
        return x[:, 1:]


def digits():
    return Digits().samples().take(range(60))


def recipe(augmentation):
    classes = tuple("0123456789")
    network = partial(MLP, hidden=[8])
    return TrainingRecipe(
        lambda seed: ClassifierTask(network, classes, (1, 8, 8), augmentation=augmentation, seed=seed), 5, 16
    )


def weights(task):
    return torch.cat([value.flatten() for value in task.state_dict().values()])


def test_training_is_that_on_changed_samples_and_evaluation_sees_none_of_it():
    own = digits()
    changed = Samples(1 - own.inputs(), own.y, own.classes, own.keys)
    task, other = retrain(recipe(Inverted()), own, seed=0), retrain(recipe(None), changed, seed=0)
    torch.testing.assert_close(weights(task), weights(other))
    torch.testing.assert_close(predict_logits(task, own), task.network(own.inputs()))
    assert not torch.equal(weights(task), weights(retrain(recipe(None), own, seed=0)))


def test_each_sample_is_changed_by_itself_and_the_seed_decides_how():
    task = recipe(Noise()).make(0)
    same = task._augmented(torch.full((6, 1, 8, 8), 128, dtype=torch.uint8))
    assert len(same.flatten(1).unique(dim=0)) == 6
    first, again, other = (weights(retrain(recipe(Noise()), digits(), seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_another_shape_and_many_trainings_at_once_are_refused():
    with pytest.raises(UserError, match=r"Cropped, which returns samples of the shape \(1, 7, 8\)"):
        retrain(recipe(Cropped()), digits(), seed=0)
    with pytest.raises(UserError, match="has an augmentation"):
        retrain_many(recipe(Noise()), digits(), [None], seed=0)


@pytest.mark.slow  # two runs and a resume by command
def test_a_resumed_run_draws_the_same_and_rank_repeats_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    prepare("./own", Digits(), val_fraction=0.05)
    quiet = ["--trainer.logger", "false", "--trainer.limit_val_batches", "0", "--trainer.enable_progress_bar", "false"]
    fit = ["fit", "--data", "OwnersDataModule", "--data.root", "own", "--model", "ClassifierTask", *quiet]
    fit += ["--model.network", "lit_valuation.nn.LinearHead", "--model.augmentation", f"{__name__}.Noise"]
    last = "runs/valuation/{}/checkpoints/last.ckpt"
    assert main([*fit, "--trainer.max_steps", "6", "--run", "whole"]) == 0, capsys.readouterr().err
    assert main([*fit, "--trainer.max_steps", "3", "--run", "parts"]) == 0
    assert main(["fit", "--ckpt_path", last.format("parts"), "--trainer.max_steps", "6"]) == 0
    whole, parts = (load_task(last.format(name)) for name in ("whole", "parts"))
    assert torch.equal(weights(whole), weights(parts)) and type(whole.augmentation).__name__ == "Noise"
    made = TrainingRecipe.from_checkpoint(last.format("whole")).make(0)
    assert type(made.augmentation).__name__ == "Noise"
