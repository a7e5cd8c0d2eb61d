"""Gradients over tokens against autograd, in both forms, and pursuits over them against the naive one."""

import numpy as np
import pytest
import torch
from naive_pursuit import naive_pursuit
from torch.nn import functional as F

from lit_core.errors import UserError
from lit_valuation.functional import token_gradients as module
from lit_valuation.functional.gradients import LastLayerGradients
from lit_valuation.functional.pursuit import PursuitOptions, matching_pursuit
from lit_valuation.functional.token_gradients import OutputLayer, TokenGradients, concatenated, token_gradients

N, WIDTH = 13, 6
#: Positions of a sample and outputs at which full matrices take fewer numbers, and at which positions do.
FORMS = {"full": (20, 4, LastLayerGradients), "tokens": (5, 40, TokenGradients)}


def case(form, bias=True, smoothing=0.0, seed=0):
    length, outputs, kind = FORMS[form]
    generator = torch.Generator().manual_seed(seed)
    weight, hidden = (
        torch.randn(outputs, WIDTH, generator=generator),
        torch.randn(N, length, WIDTH, generator=generator),
    )
    layer = OutputLayer(weight, torch.randn(outputs, generator=generator) if bias else None, smoothing)
    targets = torch.randint(outputs, (N, length), generator=generator)
    counted = torch.rand(N, length, generator=generator) < 0.6
    counted[:, 0] = True
    counted[3] = False  # a sample whose positions are all ignored
    return layer, hidden, targets, counted, kind


def by_autograd(layer, hidden, targets, counted, positions):
    """Each sample's gradient as a row, of torch's own loss with its own mask and reduction."""
    rows = []
    for h, y, real in zip(hidden, targets, counted, strict=True):
        weight = layer.weight.clone().requires_grad_()
        bias = torch.zeros(len(weight)) if layer.bias is None else layer.bias.clone()
        bias.requires_grad_()
        loss = F.cross_entropy(
            F.linear(h, weight, bias),
            y.where(real, -100),
            reduction=positions,
            label_smoothing=layer.label_smoothing,
        )
        if real.any():
            loss.backward()
        both = [torch.zeros_like(weight) if weight.grad is None else weight.grad]
        if layer.bias is not None:
            both.append((torch.zeros_like(bias) if bias.grad is None else bias.grad)[:, None])
        rows.append(torch.cat(both, dim=1).flatten())
    return torch.stack(rows)


@pytest.mark.parametrize("block", [2**23, 400])
@pytest.mark.parametrize("positions", ["mean", "sum"])
@pytest.mark.parametrize(("bias", "smoothing"), [(True, 0.0), (False, 0.1), (True, 0.3)])
@pytest.mark.parametrize("form", FORMS)
def test_they_are_those_of_autograd(form, bias, smoothing, positions, block, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", block)
    layer, hidden, targets, counted, kind = case(form, bias, smoothing)
    found = token_gradients(layer, hidden, targets, counted, positions)
    rows = by_autograd(layer, hidden, targets, counted, positions)
    assert isinstance(found, kind) and len(found) == N
    near = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(found.gram(found), rows @ rows.T, **near)
    torch.testing.assert_close(found.squared_norms(), rows.square().sum(1), **near)
    torch.testing.assert_close(found.sum().flatten(), rows.sum(0), **near)
    weights = torch.rand(N)
    target = found.sum(weights)
    torch.testing.assert_close(target.flatten(), weights @ rows, **near)
    torch.testing.assert_close(found.dot(target), rows @ target.flatten(), **near)
    some = found.take([7, 2, 7])
    torch.testing.assert_close(some.gram(found), rows[[7, 2, 7]] @ rows.T, **near)
    torch.testing.assert_close(found.gram(some), rows @ rows[[7, 2, 7]].T, **near)
    again = found.unpacked(found.packed().double())
    torch.testing.assert_close(again.gram(again), (rows @ rows.T).double(), **near)
    both = concatenated([found.take(range(5)), found.take(range(5, N))])
    torch.testing.assert_close(both.sum(), found.sum(), **near)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("rule", ["residual", "penalised"])
def test_a_pursuit_is_the_naive_one(form, rule):
    layer, hidden, targets, counted, _ = case(form)
    found = token_gradients(layer, hidden, targets, counted, "mean")
    rows = by_autograd(layer, hidden, targets, counted, "mean").double().numpy()
    target = found.take(range(4, 9)).sum()
    ridge = 0.1 * float((rows**2).sum(1).mean())
    pursuit = matching_pursuit(found, target, 6, PursuitOptions(ridge, False, rule=rule))
    support, weights, _ = naive_pursuit(rows, target.double().flatten().numpy(), 6, np.full(N, ridge), rule)
    assert pursuit.support.tolist() == support
    np.testing.assert_allclose(pursuit.weights.numpy(), weights, rtol=1e-3)
    left = target.double().flatten().numpy() - weights @ rows[support]
    assert pursuit.residual == pytest.approx(np.linalg.norm(left) / float(target.double().norm()), rel=1e-4)


def test_no_block_holds_more_outputs_than_said(monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", 200)
    sizes, delta = [], OutputLayer.delta
    monkeypatch.setattr(OutputLayer, "delta", lambda *given: sizes.append(delta(*given).numel()) or delta(*given))
    layer, hidden, targets, counted, _ = case("tokens")
    found = token_gradients(layer, hidden, targets, counted, "sum")
    found.gram(found), found.squared_norms(), found.dot(found.sum())
    assert max(sizes) <= 200 and len(sizes) > 20


def test_a_target_outside_of_the_outputs_is_refused():
    layer, hidden, targets, counted, _ = case("tokens")
    targets[0, 0] = 40
    with pytest.raises(UserError, match="to 40, but the model has 40 outputs"):
        token_gradients(layer, hidden, targets, counted, "mean")
