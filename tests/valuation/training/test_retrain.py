import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F

from lit_core.errors import UserError
from lit_valuation.functional.mass import sample_weights
from lit_valuation.module import ClassifierTask
from lit_valuation.nn import MLP
from lit_valuation.samples import Samples
from lit_valuation.training.retrain import TrainingRecipe, accuracies, is_correct, predict_logits, retrain

NAMES = tuple(map(str, range(10)))


def digits(start, stop, classes=NAMES):
    bunch = load_digits()
    keys = tuple(f"{number:04d}" for number in range(start, stop))
    x = torch.tensor(bunch.images[start:stop]).float().div(16).unsqueeze(1)
    return Samples(x, torch.tensor(bunch.target[start:stop]), NAMES, keys).renumbered(classes)


def make(seed):
    network = lambda shape, classes: MLP(shape, classes, hidden=[32])  # noqa: E731
    return ClassifierTask(network, NAMES, (1, 8, 8), seed=seed)


RECIPE = TrainingRecipe(make, steps=60, batch_size=32)


@pytest.mark.parametrize("mass", [None, 0.6])
def test_training_equals_a_plain_loop(mass):
    train, shared = digits(0, 100), digits(100, 130, tuple(reversed(NAMES)))
    weights = None if mass is None else sample_weights(100, mass, torch.arange(30.0))
    task = retrain(TrainingRecipe(make, steps=9, batch_size=32), train, shared, seed=4, weights=weights)
    plain = make(4).network
    optimizer = torch.optim.SGD(
        [
            {"params": [p for p in plain.parameters() if p.ndim > 1], "weight_decay": 1e-4},
            {"params": [p for p in plain.parameters() if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=0.05,
        momentum=0.9,
    )
    x, y = torch.cat([train.x, shared.x]), torch.cat([train.y, shared.renumbered(NAMES).y])
    generator = torch.Generator().manual_seed(4)
    order = torch.cat([torch.randperm(130, generator=generator) for _ in range(3)])
    for rows in order.split(32)[:9]:
        optimizer.zero_grad()
        losses = F.cross_entropy(plain(x[rows]), y[rows], reduction="none")
        (losses if weights is None else losses * weights[rows]).mean().backward()
        optimizer.step()
    for ours, theirs in zip(task.parameters(), plain.parameters(), strict=True):
        # the rows of a batch stand in another order: own samples first
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_state():
    train = digits(0, 200)
    before = torch.random.get_rng_state()
    first, again, other = (retrain(RECIPE, train, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    states = [nn.utils.parameters_to_vector(task.parameters()) for task in (first, again, other)]
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])


def test_what_is_shared_helps_where_the_trainer_has_nothing():
    everything, test = digits(0, 900), digits(900, 1400)
    own = everything.of_classes([name for name in NAMES if name != "7"])
    sets = {"7": test.of_classes(["7"]), "all": test}
    without = accuracies(retrain(RECIPE, own), sets)
    with_shared = accuracies(retrain(RECIPE, own, everything.of_classes(["7"])), sets)
    assert without["7"] == 0 and with_shared["7"] > 0.7 and with_shared["all"] > without["all"]


def test_finetuning_starts_from_the_weights():
    train = digits(0, 200)
    weights = retrain(RECIPE, train).state_dict()
    tuned = retrain(TrainingRecipe(make, 1, 32, weights), train, seed=5, mode="finetune")
    difference = max(float((tuned.state_dict()[name] - weights[name]).abs().max()) for name in weights)
    assert 0 < difference < 0.05
    with pytest.raises(UserError, match="mode is finetune"):
        retrain(RECIPE, train, mode="finetune")


def test_scores_are_those_of_the_whole_set_at_once():
    samples = digits(0, 300)
    task = retrain(RECIPE, samples)
    logits = predict_logits(task, samples, batch_size=7)
    torch.testing.assert_close(logits, task(samples.x))
    assert torch.equal(is_correct(task, samples), logits.argmax(1) == samples.y)
    assert accuracies(task, {"": samples})[""] == pytest.approx(float((logits.argmax(1) == samples.y).float().mean()))


class Deaf(ClassifierTask):
    """A module that does not say that it takes weights."""

    takes_weights = False


def test_a_module_that_would_ignore_weights_is_refused():
    recipe = TrainingRecipe(lambda seed: Deaf(MLP((1, 8, 8), 10), NAMES, (1, 8, 8)), steps=1, batch_size=32)
    with pytest.raises(UserError, match="`mass` weighs samples, but Deaf does not say that it takes weights"):
        retrain(recipe, digits(0, 100), digits(100, 110), weights=sample_weights(100, 0.5, torch.ones(10)))
    retrain(recipe, digits(0, 100), digits(100, 110))


def test_shared_samples_must_fit():
    train = digits(0, 100)
    strange = Samples(torch.zeros(1, 1, 9, 9), torch.zeros(1, dtype=torch.int64), NAMES, ("a",))
    with pytest.raises(UserError, match=r"shape \(1, 9, 9\)"):
        retrain(RECIPE, train, strange)
    unknown = Samples(torch.zeros(1, 1, 8, 8), torch.zeros(1, dtype=torch.int64), ("wolf",), ("a",))
    with pytest.raises(UserError, match="wolf"):
        retrain(RECIPE, train, unknown)
