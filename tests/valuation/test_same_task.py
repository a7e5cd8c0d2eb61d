"""Arguments that change what a task computes: refused on a resume, told elsewhere; each argument is tried."""

import inspect
from functools import partial
from typing import Literal, get_args, get_type_hints

import pytest
import torch
from digits_data import DigitsData
from torch import nn

import lit_valuation
from lit_core.data import ResumeStream
from lit_core.errors import UserError
from lit_core.origin import KeepsOrigin
from lit_valuation import nn as networks
from lit_valuation.module import ClassifierTask
from lit_valuation.nn import MLP, ConvNet, TokenConvNet

NAMES = ("a", "b", "c")
#: A network of each class, and inputs for it.
NETWORKS = {
    ConvNet: ((1, 6, 6), {"channels": [4], "hidden": 8}),
    MLP: ((5,), {"hidden": [8]}),
    networks.LinearHead: ((5,), {}),
    TokenConvNet: ((7,), {"vocabulary": 9, "width": 4, "hidden": [4], "dropout": 0.1}),
}
TASKS = [getattr(lit_valuation, name) for name in lit_valuation.__all__ if name.endswith("Task")]


class Foreign(KeepsOrigin, nn.Module):
    """A network of the user, whose arguments leave the shapes of its weights."""

    def __init__(
        self, input_shape, n_classes, slope: float = 0.1, residual: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(*input_shape, 5), nn.Linear(5, n_classes)
        self.slope, self.residual, self.dropout = slope, residual, nn.Dropout(dropout)

    def forward(self, x):
        hidden = self.dropout(nn.functional.leaky_relu(self.first(x), self.slope))
        return self.head(hidden + x if self.residual else hidden)


NETWORKS[Foreign] = ((5,), {})


def others(value, hint):
    """Other values of an argument: each choice, the other truth, numbers near and far, other lengths of lists."""
    for kind in get_args(hint) or (hint,):
        if getattr(hint, "__origin__", None) is Literal:
            yield kind
        elif kind is bool:
            yield not value
        elif kind in (int, float) and isinstance(value, int | float):
            yield from (kind(value * 2), kind(value / 2), kind(value + 1), kind((value + 1) / 2))
        elif isinstance(value, list | tuple):
            yield from ([*value, *value], list(value)[1:])


def variants(kind, given):
    """The arguments with each argument of a class changed to each other value."""
    parameters = inspect.signature(kind).parameters
    for name, hint in get_type_hints(kind.__init__).items():
        value = given.get(name, parameters[name].default if name in parameters else None)
        for other in others(value, hint):
            if other != value:
                yield name, given | {name: other}


def told(first, other):
    before, after = (task.function_arguments(task.plain_arguments()) for task in (first, other))
    return [key for key, value in after.items() if before[key] != value]


def outputs(task, state, shape, target):
    """Outputs and losses of a task with given weights; None if it has no place for them."""
    if {name: one.shape for name, one in state.items()} != {name: one.shape for name, one in task.state_dict().items()}:
        return None
    task.load_state_dict(state)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(6, *shape, generator=generator)
    x = (x * 9).long() - 1 if len(shape) == 1 and shape[0] == 7 else x
    y = (x[:, :3].flatten(1)[:, :3] > 0).float() if target in ("labels", "values") else torch.arange(6) % 3
    y = torch.randint(3, x.shape, generator=generator) if target == "tags" else y
    with torch.no_grad():
        found = task.eval()(x)
        return found, task.losses(found, y)


def same(one, two):
    return all(torch.equal(left, right) for left, right in zip(one, two, strict=True))


@pytest.mark.parametrize("kind", NETWORKS)
def test_each_argument_of_a_network_is_told_if_and_only_if_it_changes_the_outputs(kind):
    assert {getattr(networks, name) for name in networks.__all__} | {Foreign} == NETWORKS.keys()
    shape, given = NETWORKS[kind]
    task = lit_valuation.TaggingTask if kind is TokenConvNet else ClassifierTask
    target = task.target
    first = task(partial(kind, **given), NAMES, shape, seed=0)
    state = {name: torch.randn_like(value) for name, value in first.state_dict().items()}
    expected, tried = outputs(first, state, shape, target), {}
    for name, changed in variants(kind, given):
        try:
            other = task(partial(kind, **changed), NAMES, shape, seed=0)
        except UserError:
            continue
        if (found := outputs(other, state, shape, target)) is not None:
            assert bool(told(first, other)) != same(found, expected), f"{name} of {changed}"
            tried[name] = told(first, other)
    if kind is Foreign:
        assert {name for name, keys in tried.items() if keys} == {"slope", "residual"} and "dropout" in tried


@pytest.mark.parametrize("kind", TASKS, ids=lambda kind: kind.__name__)
def test_each_argument_of_a_task_is_told_if_and_only_if_it_changes_outputs_or_losses(kind):
    tags = kind.target == "tags"
    shape, network = (NETWORKS[TokenConvNet][0], partial(TokenConvNet, vocabulary=9)) if tags else ((5,), MLP)
    scale = {"target_mean": [0.0] * 3, "target_scale": [1.0] * 3} if kind.target == "values" else {}
    first = kind(network, NAMES, shape, seed=0, **scale)
    state, tried = first.state_dict(), set()
    expected = outputs(first, state, shape, kind.target)
    for name, changed in variants(kind, {"seed": 0, **scale}):
        if name not in ("network", "classes", "input_shape"):
            try:
                other = kind(network, NAMES, shape, **changed)
            except UserError:
                continue
            assert bool(told(first, other)) != same(outputs(other, state, shape, kind.target), expected), name
            tried.add(name)
    assert "seed" in tried and (not tags or "positions" in tried)


@pytest.fixture
def fit(quiet, tmp_path):
    def train(steps, network=Foreign, **options):
        model = ClassifierTask(network, list("0123456789"), (1, 8, 8), seed=0)
        trainer = quiet(ResumeStream(), max_steps=steps, limit_val_batches=0)
        trainer.fit(model, datamodule=DigitsData(), weights_only=True, **options)
        trainer.save_checkpoint(tmp_path / "run.ckpt")
        return tmp_path / "run.ckpt"

    return train


class FlatForeign(Foreign):
    """The same for images."""

    def __init__(self, input_shape, n_classes, slope: float = 0.1) -> None:
        super().__init__((64,), n_classes, slope)

    def forward(self, x):
        return super().forward(x.flatten(1))


def test_a_resume_with_another_argument_is_refused_and_another_use_says_so(fit, recwarn):
    path = fit(1, FlatForeign)
    fit(2, partial(FlatForeign, slope=0.1), ckpt_path=path)
    assert not [warning for warning in recwarn if "in the checkpoint" in str(warning.message)]
    with pytest.raises(UserError, match=r"`network.slope` is 0.5, but 0.1 in the checkpoint, and a resume cannot"):
        fit(3, partial(FlatForeign, slope=0.5), ckpt_path=path)
    with pytest.warns(UserWarning, match=r"`network.slope` is 0.5, but 0.1 in the checkpoint, so the network does not"):
        ClassifierTask.load_from_checkpoint(path, network=partial(FlatForeign, slope=0.5))


def test_a_scale_that_the_weights_would_replace_is_refused():
    arguments = {"target_mean": [0.0] * 3, "target_scale": [0.1] * 3}
    first = lit_valuation.RegressionTask(MLP, NAMES, (5,), **arguments)
    checkpoint = {name: getattr(first, name).tolist() for name in arguments}
    first.on_load_checkpoint(checkpoint)
    lit_valuation.RegressionTask(MLP, NAMES, (5,)).on_load_checkpoint(checkpoint)
    other = lit_valuation.RegressionTask(MLP, NAMES, (5,), **arguments | {"target_scale": [0.1, 0.1, 3.0]})
    with pytest.raises(UserError, match=r"`target_scale` is \[0.1, 0.1, 3.0\], but the weights of the checkpoint"):
        other.on_load_checkpoint(checkpoint)
