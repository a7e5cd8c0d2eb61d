"""Numbers of NumPy and torch, as sweeps and tables give them, are numbers everywhere: in constructors and functions.

Each is tried as NumPy's scalar, as an array and as a tensor without dimensions.
"""

import inspect
import math

import numpy as np
import pytest
import torch
from test_numbers import hints as hints_of
from test_numbers import make_folders, nameable, needed_by, numbers, numeric, with_number, wrong
from torch import nn
from torch.optim import SGD

from lit_core.data import EvalStream, MixtureStream, ShardStream, StreamLoader
from lit_core.errors import UserError
from lit_core.lightning.schedules import StepSchedule
from lit_core.lm.tokenizer import Tokenizer
from lit_core.study import kendall, spearman, t_interval
from lit_moe.lm import language_model
from lit_moe.metrics import CoactivationOverlap, ContinualRouterSaturation, ContinualVocabularySpecialization
from lit_moe.nn import (
    Decoder,
    DecoderConfig,
    FeedForward,
    MoEConfig,
    MoEFeedForward,
    PenaltyRouter,
    preset,
    watch_gates,
)
from lit_valuation.selectors import split_budget

FORMS = {
    "scalar": lambda value: np.int64(value) if isinstance(value, int) else np.float64(value),
    "array": np.array,
    "tensor": lambda value: torch.tensor(value, dtype=None if isinstance(value, int) else torch.float64),
}


def usual(part, name):
    """A Python number with which the class can be built."""
    given = needed_by(part).get(name, inspect.signature(part).parameters[name].default)
    kinds = numeric(hints_of(part.__init__).get(name))
    return given if type(given) in (int, float) else 2 if int in kinds else 0.5


def outcome(part, arguments):
    """The kind of error with which building a class ends; None if it is built."""
    try:
        part(**arguments)
    except Exception as error:
        return type(error)
    return None


@pytest.mark.parametrize("part", [one for one in nameable() if numbers(one.__init__)], ids=lambda part: part.__name__)
def test_a_class_takes_and_refuses_them_as_numbers_of_python(part, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    make_folders()
    needed = needed_by(part)

    def given(name, value):
        before = needed.get(name, inspect.signature(part).parameters[name].default)
        return {**needed, name: value if type(before) in (int, float) else with_number(before, name, value)}

    for name in numbers(part.__init__):
        value = usual(part, name)
        expected = outcome(part, given(name, value))
        for form in FORMS.values():
            assert outcome(part, given(name, form(value))) == expected, name
    for name, value in wrong(part):
        form = [*FORMS.values()][len(name) % 3]  # each form in turn, as the checks are the same ones
        with pytest.raises(UserError, match=rf"\b{name}\b"):
            part(**given(name, form(value)))


class Gated(nn.Module):
    """A foreign mixture's gate without a number of experts per token."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(4, 3)


ROWS = [(torch.zeros(2), torch.tensor(1))] * 8


def sizes(number):
    return {"global_batch_size": number(4), "micro_batch_size": number(2), "seed": number(0)}


def replayed(number, fraction):
    stream = MixtureStream({"a": ROWS}, replay={"b": ROWS}, **sizes(number))
    stream.set_replay(fraction)
    return stream.quotas(number(3)), stream.counts(number(2)), stream.plan(number(1))


def started(number):
    stream = ShardStream(ROWS, "a", **sizes(number))
    stream.start_at(number(3), {"a": number(12)})
    return stream.consumed(number(4)), len(stream.micro_batch(number(0))[0])


def decoded(number):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        shape = {"n_layers": number(1), "d_model": number(8), "n_heads": number(1), "d_ff": number(8)}
        decoder = Decoder(DecoderConfig(number(257), **shape, rope_theta=number(1e4), norm_eps=number(1e-5)))
    ids = torch.arange(4)[None]
    options = {"max_new_tokens": number(3), "temperature": number(0.5), "top_k": number(5), "seed": number(0)}
    text = language_model(decoder.eval(), Tokenizer.bytes()).generate_ids([[1, 2]], **options)
    return decoder(ids).detach().tolist(), text, int(decoder.flops_per_token(number(8)))


def drift(metric, *before):
    metric.update(*before, torch.tensor([[0, 1]]), torch.tensor([[0, 2]]))
    value = metric.compute()
    return [float(one) for one in (value if isinstance(value, tuple) else (value,)) if one.dim() == 0]


def mixture(number):
    layer = MoEFeedForward(number(4), MoEConfig(number(4), number(2), number(8)), PenaltyRouter)
    return [
        tuple(parameter.shape) for parameter in (*layer.parameters(), *FeedForward(number(4), number(8)).parameters())
    ]


def evaluated(number):
    loader = StreamLoader(EvalStream(ROWS, number(4), number(0), number(1)), num_workers=number(0))
    return [len(batch[0]) for batch in loader]


#: Functions and classes that no config names, by what they return for numbers of a form.
USED = {
    "mixed": lambda n: MixtureStream({"a": ROWS, "b": ROWS}, {"a": n(1.5), "b": n(0.5)}, **sizes(n)).plan(n(1)),
    "replayed": lambda n: replayed(n, n(0.25)),
    "replayed by a schedule": lambda n: replayed(n, lambda step: n(0.25)),
    "started": started,
    "evaluated": evaluated,
    "watched": lambda n: [gate.router.top_k for gate in watch_gates(Gated(), "gate", n(2), n(0.1), n(0.1)).values()],
    "preset": lambda n: preset("granular", n(64)),
    "mixture": mixture,
    "decoded": decoded,
    "saturation": lambda n: drift(ContinualRouterSaturation(n(3), n(2))),
    "vocabulary": lambda n: drift(ContinualVocabularySpecialization(n(3), n(2), n(5), n(1)), torch.tensor([1])),
    "pairs": lambda n: drift(CoactivationOverlap(n(3), n(2))),
    "budget": lambda n: split_budget(n(4), torch.tensor([0, 1, 0, 1]), torch.tensor([0, 1])),
    "interval": lambda n: t_interval([n(1.0), n(2.0), n(4.0)], n(0.9)),
    "ranks": lambda n: [of([n(1.0), n(2.0), n(4.0)], [n(3.0), n(1.0), n(2.0)]) for of in (kendall, spearman)],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", USED)
def test_what_is_computed_is_what_numbers_of_python_give(name, form):
    """To the type, so that it can be written anywhere."""
    assert repr(USED[name](FORMS[form])) == repr(USED[name](lambda value: value))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "part", [one for one in nameable() if issubclass(one, StepSchedule)], ids=lambda one: one.__name__
)
def test_a_schedule_leaves_numbers_of_python_in_checkpoints(part, form, tmp_path):
    """A checkpoint with a number of NumPy cannot be loaded as plain data."""
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    rates = {
        name: FORMS[form](value)
        for name, value in (("const_lr", 0.5), ("min_lr", 0.1))
        if name in numbers(part.__init__)
    }
    schedule = part(optimizer, total_steps=FORMS[form](10), **rates, warmup=FORMS[form](0.1))
    for _ in range(9):
        optimizer.step()
        schedule.step()
        torch.save([schedule.state_dict(), optimizer.state_dict()], tmp_path / "state.pt")
        torch.load(tmp_path / "state.pt", weights_only=True)
        assert math.isfinite(optimizer.param_groups[0]["lr"])
