"""Many trainings at once equal single ones with Lightning's Trainer."""

from functools import partial

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR

from lit_core.errors import RunFailure, UserError
from lit_valuation.functional.mass import sample_weights
from lit_valuation.module import ClassifierTask, sgd
from lit_valuation.nn import MLP, ConvNet
from lit_valuation.sources import Digits
from lit_valuation.training.retrain import TrainingRecipe, retrain
from lit_valuation.training.retrain_many import retrain_many


@pytest.fixture(scope="module")
def digits():
    return Digits().samples()


def recipe(digits, network, optimizer=sgd, **arguments):
    def make(seed):
        return ClassifierTask(
            lambda shape, n_classes: network(shape, n_classes),
            digits.classes,
            digits.x.shape[1:],
            optimizer=optimizer,
            scheduler=partial(CosineAnnealingLR, T_max=12),
            label_smoothing=0.1,
            seed=seed,
        )

    return TrainingRecipe(make, steps=12, batch_size=16, **arguments)


@pytest.mark.parametrize("network", [partial(MLP, hidden=[8]), partial(ConvNet, channels=[4], hidden=8)])
@pytest.mark.parametrize("weighted", [False, True])
def test_each_is_what_it_is_alone(digits, network, weighted):
    train = digits.take(range(40))  # two batches and a half
    shared = [None, digits.take(range(50, 57)), digits.take(range(60, 61))]
    weights = [None, sample_weights(40, 0.4, torch.arange(7.0)), None] if weighted else None
    several = retrain_many(recipe(digits, network), train, shared, seed=3, at_once=2, weights=weights)
    for task, answer, given in zip(several, shared, weights or [None] * 3, strict=True):
        alone = retrain(recipe(digits, network), train, answer, seed=3, weights=given)
        assert not task.training
        for (name, mine), theirs in zip(task.named_parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4, msg=name)


def test_earlier_moments_and_fine_tuning(digits):
    made = recipe(digits, partial(MLP, hidden=[8]))
    train, answer = digits.take(range(40)), digits.take(range(50, 57))
    early, late = retrain_many(made, train, [answer], seed=1, steps=[5, 12])
    (again,) = retrain_many(made, train, [answer], seed=1)
    assert all(torch.equal(a, b) for a, b in zip(late.parameters(), again.parameters(), strict=True))
    assert not torch.equal(early.network.head.weight, late.network.head.weight)
    tuned = recipe(digits, partial(MLP, hidden=[8]), weights=late.state_dict())
    (mine,) = retrain_many(tuned, train, [answer], mode="finetune")
    theirs = retrain(tuned, train, answer, mode="finetune")
    torch.testing.assert_close(mine.network.head.weight, theirs.network.head.weight, atol=1e-5, rtol=1e-4)


def test_what_it_refuses(digits):
    train, network = digits.take(range(40)), partial(MLP, hidden=[8])
    with pytest.raises(UserError, match="sets precision of the Trainer"):
        retrain_many(recipe(digits, network, trainer={"precision": "bf16"}), train, [None])
    with pytest.raises(UserError, match="no weights to start from"):
        retrain_many(recipe(digits, network), train, [None], mode="finetune")
    with pytest.raises(RunFailure, match="The loss became"):
        retrain_many(recipe(digits, network, partial(torch.optim.SGD, lr=1e30)), train, [None])
