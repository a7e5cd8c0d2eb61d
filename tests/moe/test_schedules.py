import math
import random
import warnings
from inspect import signature
from itertools import pairwise

import pytest
import torch
from torch.optim import SGD

from lit_core.errors import UserError
from lit_core.lightning import schedules as core_schedules
from lit_moe import schedules as moe_schedules
from lit_moe.schedules import CosineInf, InvSqrtInf, StepSchedule, WarmupCosine

#: All schedules of the packages.
EVERY = sorted(
    {
        kind
        for module in (core_schedules, moe_schedules)
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, StepSchedule) and kind is not StepSchedule
    },
    key=lambda kind: kind.__name__,
)
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
        (InvSqrtInf, {"total_steps": 10, "const_lr": CONST, "min_lr": LEAST, "timescale": math.inf}, ["timescale"]),
        (WarmupCosine, {"total_steps": 10, "min_lr": math.nan}, ["min_lr", "nan"]),
        (CosineInf, {"total_steps": 10, "const_lr": math.nan, "min_lr": LEAST}, ["const_lr", "nan"]),
    ],
)
def test_arguments_are_checked_in_one_sentence(kind, arguments, words):
    with pytest.raises(UserError) as error:
        kind(optimizer(), **arguments)
    message = str(error.value)
    assert all(word in message for word in words), message
    assert "\n" not in message and message.endswith(".")


def phases_of(kind):
    """Names of the phases that a schedule's constructor takes, in order."""
    return [name for name in ("warmup", "cooldown", "constant") if name in signature(kind).parameters]


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
def test_what_is_checked_is_what_is_used(kind):
    """In steps, not in fractions: each phase that is given runs, all of them fit, and the rest decays to the end."""
    drawn = random.Random(0)
    refused = taken = 0
    fixed = {"min_lr": LEAST, **({"const_lr": CONST} if "const_lr" in signature(kind).parameters else {})}
    for _ in range(600):
        total = drawn.choice([4, 5, 7, 10, 16, 33])
        fractions = {name: drawn.choice([0, 0.02, 0.1, 0.26, 0.34, 0.66, 0.9]) for name in phases_of(kind)}
        rest = 1 - sum(fractions.values())
        if rest < -1e-9:
            continue
        steps = {name: round(fraction * total) for name, fraction in fractions.items()}
        gone = [name for name in list(fractions)[1:] if fractions[name] and not steps[name]]
        left = total - sum(steps.values())
        jumps = "cooldown" in steps and fractions["warmup"] and not steps["cooldown"]
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            if gone or (left <= 0 and rest > 1e-9) or jumps:
                with pytest.raises(UserError) as error:
                    kind(optimizer(), total, **fixed, **fractions)
                assert jumps or all(name in str(error.value) for name in gone[:1])
                refused += 1
                continue
            schedule = kind(optimizer(), total, **fixed, **fractions)
        taken += 1
        assert any("`warmup`" in str(warning.message) for warning in said) == bool(
            fractions["warmup"] and not steps["warmup"]
        )
        rates = [schedule.rate(step, PEAK) for step in range(total + 1)]
        if not (fractions["warmup"] == fractions.get("cooldown") == 0):  # else it starts flat, at const_lr
            assert max(rates) == PEAK
        if left > 0:
            assert rates[total] == pytest.approx(LEAST) and rates[total] < rates[total - 1]
    assert refused > 10 and taken > 20


@pytest.mark.parametrize("kind", [kind for kind in EVERY if len(phases_of(kind)) > 1], ids=lambda kind: kind.__name__)
def test_phases_that_fill_the_run_fit_into_each_length_of_it(kind):
    """Rounded up, the three take 31 steps of 30; the last is then cut, as the end of the run would cut it."""
    for total in range(20, 400):
        schedule = kind(optimizer(), total, const_lr=CONST, min_lr=LEAST, warmup=0.05, cooldown=0.65, constant=0.3)
        assert total - 1 <= sum(schedule.lengths) <= total
        assert schedule.lengths[:2] == [round(0.05 * total), round(0.65 * total)]


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.__name__)
def test_a_trial_shorter_than_its_phases_is_told_what_it_leaves_out(kind):
    phases = phases_of(kind)
    fractions = dict.fromkeys(phases, 0.3 if len(phases) > 1 else 0.6)
    fixed = {"min_lr": LEAST, **({"const_lr": CONST} if len(phases) > 1 else {})}
    with pytest.warns(UserWarning, match=r"`warmup`.* of \d+ steps|no step is left"):
        kind(optimizer(), 1, **fixed, **fractions)
