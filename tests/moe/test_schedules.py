import math
from itertools import pairwise

import pytest
import torch
from torch.optim import SGD

from lit_core.errors import UserError
from lit_moe.schedules import CosineInf, InvSqrtInf, WarmupCosine

PEAK, CONST, LEAST = 3e-4, 1.65e-4, 3e-5


def optimizer(lr=PEAK):
    return SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def run(schedule, steps):
    """Learning rates that an optimizer really has, step by step."""
    rates = []
    for _ in range(steps):
        rates.append(schedule.optimizer.param_groups[0]["lr"])
        schedule.optimizer.step()
        schedule.step()
    return rates


def cosine_formula(step, total, warmup):
    n_w = round(warmup * total)
    if step < n_w:
        return PEAK * step / n_w
    return LEAST + (PEAK - LEAST) / 2 * (1 + math.cos(math.pi * (step - n_w) / (total - n_w)))


def infinite_formula(step, total, warmup, cooldown, constant, g=None):
    """Four phases written one after the other over the whole axis, instead of by peeling off lengths."""
    n_w, n_c, n_k = (round(fraction * total) for fraction in (warmup, cooldown, constant))
    n_a = total - n_w - n_c - n_k
    if step < n_w:
        return PEAK * step / n_w
    if step < n_w + n_c:
        u = (step - n_w) / n_c
        if g is None:
            return CONST + (PEAK - CONST) / 2 * (1 + math.cos(math.pi * u))
        return PEAK + (CONST - PEAK) * g(u) / g(1)
    if step < n_w + n_c + n_k:
        return CONST
    return CONST * (LEAST / CONST) ** ((step - n_w - n_c - n_k) / n_a)


@pytest.mark.parametrize("total", [7, 100, 333])
@pytest.mark.parametrize("warmup", [0, 0.01, 0.25])
def test_warmup_cosine_follows_the_formula(total, warmup):
    rates = run(WarmupCosine(optimizer(), total, warmup=warmup, min_lr=LEAST), total)
    assert rates == pytest.approx([cosine_formula(step, total, warmup) for step in range(total)], rel=1e-12)


@pytest.mark.parametrize("total", [10, 100, 333])
@pytest.mark.parametrize("phases", [(0.01, 0.7, 0.1), (0.2, 0.3, 0.4), (0.0, 0.0, 0.8), (0.0, 0.5, 0.0)])
def test_infinite_schedules_follow_the_formula(total, phases):
    warmup, cooldown, constant = phases
    arguments = {"const_lr": CONST, "min_lr": LEAST, "warmup": warmup, "cooldown": cooldown, "constant": constant}
    cosine = run(CosineInf(optimizer(), total, **arguments), total)
    assert cosine == pytest.approx([infinite_formula(step, total, *phases) for step in range(total)], rel=1e-12)

    root = run(InvSqrtInf(optimizer(), total, timescale=7.0, **arguments), total)
    expected = [infinite_formula(t, total, *phases, g=lambda u: 1 / math.sqrt(1 + 7 * u) - 1) for t in range(total)]
    assert root == pytest.approx(expected, rel=1e-12)


def test_a_branch_starts_flat_and_anneals_at_the_end():
    rates = run(CosineInf(optimizer(), 100, CONST, LEAST, warmup=0, cooldown=0, constant=0.8), 101)
    assert rates[:81] == [CONST] * 81
    assert all(later < earlier for earlier, later in pairwise(rates[80:]))
    assert rates[100] == pytest.approx(LEAST)


def test_the_rate_stays_at_the_minimum_past_the_end():
    for schedule in (CosineInf(optimizer(), 10, CONST, LEAST), WarmupCosine(optimizer(), 10, min_lr=LEAST)):
        assert run(schedule, 30)[-1] == pytest.approx(LEAST)


def test_without_annealing_the_rate_stays_constant():
    rates = run(CosineInf(optimizer(), 10, CONST, LEAST, warmup=0, cooldown=0, constant=1), 30)
    assert rates == [CONST] * 30


@pytest.mark.parametrize("kind", [WarmupCosine, CosineInf, InvSqrtInf])
@pytest.mark.parametrize("stop", [1, 37, 99])
def test_a_resumed_schedule_is_bit_equal(kind, stop):
    arguments = {} if kind is WarmupCosine else {"const_lr": CONST}
    whole = run(kind(optimizer(), 100, min_lr=LEAST, **arguments), 100)

    first = kind(optimizer(), 100, min_lr=LEAST, **arguments)
    run(first, stop)
    second = kind(optimizer(), 100, min_lr=LEAST, **arguments)
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    second.load_state_dict(first.state_dict())
    assert run(second, 100 - stop) == whole[stop:]


def test_a_config_changed_on_resume_wins():
    first = WarmupCosine(optimizer(), 100, warmup=0)
    run(first, 50)
    longer = WarmupCosine(optimizer(), 200, warmup=0)
    longer.load_state_dict(first.state_dict())
    longer.step()
    assert longer.get_last_lr()[0] == pytest.approx(PEAK / 2 * (1 + math.cos(math.pi * 51 / 200)))


def test_parameter_groups_keep_their_own_maximum():
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (PEAK, 2 * PEAK)]
    schedule = WarmupCosine(SGD(groups, lr=1.0), 100, warmup=0)
    assert schedule.get_last_lr() == [PEAK, 2 * PEAK]


@pytest.mark.parametrize(
    ("kind", "arguments", "words"),
    [
        (WarmupCosine, {"total_steps": 0}, ["total_steps", "0"]),
        (WarmupCosine, {"total_steps": 10, "warmup": 1.5}, ["warmup", "1.5"]),
        (WarmupCosine, {"total_steps": 10, "min_lr": 1.0}, ["min_lr", "lr"]),
        (WarmupCosine, {"total_steps": 10, "min_lr": -1.0}, ["min_lr", "-1"]),
        (CosineInf, {"total_steps": 10, "const_lr": 1.0, "min_lr": LEAST}, ["const_lr"]),
        (CosineInf, {"total_steps": 10, "const_lr": LEAST, "min_lr": CONST}, ["const_lr", "min_lr"]),
        (CosineInf, {"total_steps": 10, "const_lr": CONST, "min_lr": 0.0}, ["min_lr"]),
        (CosineInf, {"total_steps": 10, "const_lr": CONST, "min_lr": LEAST, "constant": 0.5}, ["cooldown", "1.21"]),
        (CosineInf, {"total_steps": 10, "const_lr": CONST, "min_lr": LEAST, "cooldown": 0.0}, ["warmup", "jump"]),
        (InvSqrtInf, {"total_steps": 10, "const_lr": CONST, "min_lr": LEAST, "timescale": 0.0}, ["timescale"]),
    ],
)
def test_arguments_are_checked_in_one_sentence(kind, arguments, words):
    with pytest.raises(UserError) as error:
        kind(optimizer(), **arguments)
    message = str(error.value)
    assert all(word in message for word in words), message
    assert "\n" not in message and message.endswith(".")
