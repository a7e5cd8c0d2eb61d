"""Parts that are frozen or learn more slowly: no gradient, decay or moments, and one ratio under any schedule."""

import copy

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR

from lit_core.errors import UserError
from lit_core.lightning.optimizers import build_optimizers
from lit_core.lightning.parts import freeze, matching
from lit_core.lightning.schedules import WarmupCosine


def network():
    torch.manual_seed(0)
    parts = {"gate": nn.Linear(3, 3), "gate_proj": nn.Linear(3, 3), "layers": nn.Sequential(nn.Linear(3, 3))}
    return nn.ModuleDict(parts)


def gradients(net, seed):
    torch.manual_seed(seed)
    for parameter in net.parameters():
        gradient = torch.randn(parameter.shape)  # drawn for frozen ones as well
        parameter.grad = gradient if parameter.requires_grad else None


def test_a_pattern_names_whole_parts():
    net = network()
    assert matching(net, "gate", "freeze") == ["gate.weight", "gate.bias"]
    assert matching(net, "gate*.bias", "freeze") == ["gate.bias", "gate_proj.bias"]
    assert matching(net, "layers.0", "freeze") == ["layers.0.weight", "layers.0.bias"]
    with pytest.raises(UserError, match="`freeze` has router, but no parameter"):
        freeze(net, ["router"])
    with pytest.raises(UserError, match="`lr_factors` has router, but no parameter"):
        build_optimizers(net, AdamW, None, {"router": 0.1})
    with pytest.raises(UserError, match=r"lr_factors.gate is -1, but must be above 0"):
        build_optimizers(net, AdamW, None, {"layers": 0.1, "gate": -1})
    for empty in ("", " "):
        with pytest.raises(UserError, match="`freeze` has an empty pattern; remove it"):
            freeze(net, [empty])
    with pytest.raises(UserError, match="leaves no parameter to train"):
        freeze(net, ["*"])


def test_frozen_parts_stay_and_have_no_moments():
    net = network()
    before = copy.deepcopy(net)
    freeze(net, ["gate"])
    optimizer = build_optimizers(net, lambda groups: AdamW(groups, lr=0.1, weight_decay=0.5), None)
    gradients(net, 1)
    optimizer.step()
    start = dict(before.named_parameters())
    changed = {name for name, parameter in net.named_parameters() if not torch.equal(parameter, start[name])}
    assert changed == {name for name, _ in net.named_parameters() if not name.startswith("gate.")}
    assert len(optimizer.state) == 4


SCHEDULES = [
    lambda optimizer: WarmupCosine(optimizer, total_steps=6, warmup=0.2, min_lr=0.09),  # above the slowed rate
    lambda optimizer: CosineAnnealingLR(optimizer, 6, eta_min=0.05),
]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_ratio_is_the_same_at_each_step_and_after_a_resume(schedule):
    plain, slow = network(), network()
    built = [build_optimizers(net, lambda groups: SGD(groups, lr=0.1), schedule, own) for net, own in
             ((plain, None), (slow, {"gate": 0.25, "layers": 4}))]  # fmt: skip
    for step in range(5):
        befores = [[p.detach().clone() for p in net.parameters()] for net in (plain, slow)]
        for net, one in zip((plain, slow), built, strict=True):
            gradients(net, step)
            one["optimizer"].step()
            one["lr_scheduler"]["scheduler"].step()
        factors = [0.25] * 2 + [1] * 2 + [4] * 2
        for factor, a, b, first, second in zip(factors, plain.parameters(), slow.parameters(), *befores, strict=True):
            torch.testing.assert_close(b - second, factor * (a - first))
        assert {group["lr"] for group in built[1]["optimizer"].param_groups} == {
            group["lr"] for group in built[0]["optimizer"].param_groups
        }
        state = copy.deepcopy(built[1]["optimizer"].state_dict())
        again = build_optimizers(slow, lambda groups: SGD(groups, lr=0.1), schedule, {"gate": 0.25, "layers": 4})
        again["optimizer"].load_state_dict(state)
        again["lr_scheduler"]["scheduler"].load_state_dict(built[1]["lr_scheduler"]["scheduler"].state_dict())
        built[1] = again
