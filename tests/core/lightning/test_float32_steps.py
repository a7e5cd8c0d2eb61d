"""Optimizers that step in float32 on weights in bfloat16, beside the same optimizers on weights in float32."""

import copy
import inspect

import pytest
import torch
from torch import nn

import lit_detect
import lit_moe
import lit_valuation
from lit_core.errors import UserError
from lit_core.lightning import float32_steps
from lit_core.lightning.float32_steps import LOW_BITS, for_weights_in, step_in_float32
from lit_core.lightning.optimizers import fitting_moments
from lit_core.lightning.task import EvaluationTask

KINDS = [
    kind
    for _, kind in inspect.getmembers(torch.optim, inspect.isclass)
    if issubclass(kind, torch.optim.Optimizer) and kind is not torch.optim.Optimizer
]


def weights(dtype, dimensions=(2, 1)):
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn([6] * n, generator=generator).mul(0.02).bfloat16() for n in dimensions]
    return [nn.Parameter(weight.to(dtype)) for weight in drawn]


def steps(optimizer, parameters, n, first=0):
    for step in range(first, first + n):
        generator = torch.Generator().manual_seed(step)
        for weight in parameters:
            weight.grad = torch.randn(weight.shape, generator=generator).bfloat16().to(weight.dtype)
        optimizer.step()


def joined(optimizer, weight):
    high, low = (optimizer.state[weight][name].int() for name in LOW_BITS)
    return ((weight.detach().view(torch.int16).int() << 16) + (high << 8) + low).view(torch.float32)


def in_bfloat16(kind, **options):
    low = weights(torch.bfloat16, (2,) if kind is torch.optim.Muon else (2, 1))
    optimizer = kind(low, **options)
    step_in_float32(optimizer)
    return optimizer, low


@pytest.mark.parametrize("at_once", [1, 2**24])
@pytest.mark.parametrize(
    "kind",
    [kind for kind in KINDS if kind not in (torch.optim.LBFGS, torch.optim.SparseAdam)],
    ids=lambda k: k.__name__,
)
def test_each_optimizer_of_torch_steps_as_on_float32(kind, at_once, monkeypatch):
    """Bit for bit."""
    monkeypatch.setattr(float32_steps, "AT_ONCE", at_once)
    optimizer, low = in_bfloat16(kind, lr=1e-5)
    exact = weights(torch.float32, [weight.ndim for weight in low])
    steps(optimizer, low, 6)
    steps(kind(exact, lr=1e-5), exact, 6)
    assert isinstance(optimizer, kind)
    for mine, theirs in zip(low, exact, strict=True):
        assert torch.equal(joined(optimizer, mine), theirs)
        # the nearest, upwards where two are as near
        assert ((mine.float() - theirs).abs() <= (theirs.bfloat16().float() - theirs).abs()).all()
        moments = {name: value for name, value in optimizer.state[mine].items() if name not in LOW_BITS}
        assert {value.dtype for value in moments.values() if torch.is_tensor(value) and value.dim()} <= {torch.float32}


def test_without_it_small_steps_are_lost():
    plain = weights(torch.bfloat16)
    steps(torch.optim.AdamW(plain, lr=1e-5, weight_decay=0.0), plain, 1)
    unmoved = torch.cat([(a == b).flatten() for a, b in zip(plain, weights(torch.bfloat16), strict=True)])
    assert unmoved.float().mean() > 0.5


@pytest.mark.parametrize("options", [{"fused": True}, {"foreach": True}, {"foreach": False}], ids=str)
def test_a_resumed_optimizer_steps_as_if_it_had_not_stopped(options):
    whole, expected = in_bfloat16(torch.optim.AdamW, lr=1e-4, **options)
    steps(whole, expected, 6)
    first, before = in_bfloat16(torch.optim.AdamW, lr=1e-4, **options)
    steps(first, before, 3)
    second, after = in_bfloat16(torch.optim.AdamW, lr=1e-4, **options)
    for weight, saved in zip(after, before, strict=True):
        weight.data.copy_(saved)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    steps(second, after, 3, first=3)
    for mine, theirs in zip(after, expected, strict=True):
        assert torch.equal(mine, theirs)
        assert second.state[mine].keys() == whole.state[theirs].keys()
        for name, value in whole.state[theirs].items():
            assert second.state[mine][name].dtype == value.dtype and torch.equal(second.state[mine][name], value)


def test_hooks_and_closures_run_once_and_weights_of_other_formats_are_stepped_too(monkeypatch):
    monkeypatch.setattr(float32_steps, "AT_ONCE", 1)
    parameters = [*weights(torch.bfloat16), nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2).bfloat16())]
    optimizer = torch.optim.SGD([{"params": parameters[:1]}, {"params": parameters[1:], "lr": 0.5}], lr=0.1)
    step_in_float32(optimizer)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    calls = []
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))

    def closure():
        assert torch.is_grad_enabled()
        calls.append("closure")
        for parameter in parameters[:3]:
            parameter.grad = torch.ones_like(parameter)
        return 7

    groups = [list(group["params"]) for group in optimizer.param_groups]
    assert optimizer.step(closure) == 7
    schedule.step()
    assert calls == ["before", "closure", "after"]
    assert parameters[2].tolist() == [0.5] * 3 and parameters[3].tolist() == [1, 1]
    assert all(
        a is b for x, g in zip(groups, optimizer.param_groups, strict=True) for a, b in zip(x, g["params"], strict=True)
    )


def test_float32_weights_take_moments_of_bfloat16_ones_and_the_reverse():
    low_optimizer, low = in_bfloat16(torch.optim.AdamW)
    steps(low_optimizer, low, 1)
    exact = weights(torch.float32)
    exact_optimizer = torch.optim.AdamW(exact)
    fitting = fitting_moments(exact_optimizer, dict(zip(exact, (low_optimizer.state[w] for w in low), strict=True)))
    assert {name for state in fitting.values() for name in state} == {"step", "exp_avg", "exp_avg_sq"}
    steps(exact_optimizer, exact, 1)
    fitting = fitting_moments(low_optimizer, dict(zip(low, (exact_optimizer.state[w] for w in exact), strict=True)))
    assert len(fitting) == 2
    assert for_weights_in(torch.bfloat16, low_optimizer.state[low[0]]).keys() > fitting[low[0]].keys()


def test_what_cannot_train_is_refused():
    with pytest.raises(UserError, match=r"16-true.*bf16-mixed"):
        step_in_float32(torch.optim.AdamW(weights(torch.float16)))
    with pytest.raises(UserError, match="LBFGS"):
        step_in_float32(torch.optim.LBFGS(weights(torch.bfloat16)))
    same = torch.optim.LBFGS(weights(torch.float32))
    step_in_float32(same)
    assert type(same) is torch.optim.LBFGS


def our_modules():
    exported = [getattr(package, name) for package in (lit_moe, lit_valuation, lit_detect) for name in package.__all__]
    return [kind for kind in exported if inspect.isclass(kind) and issubclass(kind, EvaluationTask)]


def test_each_of_our_modules_trains_bfloat16_in_float32(monkeypatch):
    kinds = our_modules()
    assert {kind.__module__.partition(".")[0] for kind in kinds} == {"lit_moe", "lit_valuation", "lit_detect"}
    for kind in kinds:
        monkeypatch.setattr(kind, "is_trained", True)
        module = object.__new__(kind)  # only what it does with the weights counts here
        nn.Module.__init__(module)
        module.network = nn.Linear(2, 2).bfloat16()
        module.optimizer, module.scheduler, module.lr_factors = torch.optim.AdamW, None, None
        optimizer = kind.configure_optimizers(module)
        steps(optimizer, list(module.parameters()), 1)
        assert all(optimizer.state[weight].keys() >= set(LOW_BITS) for weight in module.parameters()), kind
