"""Gradient matching, with and without the penalty on samples that look unlike the queries."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import nnls
from sklearn.datasets import load_digits
from torch.nn import functional as F

from lit_core.errors import UserError
from lit_valuation.functional.gradients import last_layer_gradients
from lit_valuation.selectors import FuncFeatSelector, GradientMatchingSelector, Pool
from lit_valuation.selectors.func_feat import psi_by_class


@pytest.fixture(scope="module")
def sides():
    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x, dtype=torch.float64) / 16, torch.tensor(y)
    layer = torch.nn.Linear(64, 10, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(-1, 1, 640, dtype=torch.float64).sin().reshape(10, 64))
        layer.bias.zero_()
    pool, asked = torch.arange(300), torch.arange(1500, 1530)
    asked = asked[torch.isin(y[asked], torch.tensor([3, 8]))]

    def side(rows):
        return Pool(
            y[rows], features=x[rows], gradients=last_layer_gradients(layer(x[rows]).detach(), x[rows], y[rows])
        )

    def naive(rows):
        """Materialised gradients by autograd, one sample at a time."""
        found = []
        for i in rows.tolist():
            loss = F.cross_entropy(layer(x[i : i + 1]), y[i : i + 1])
            found.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, [layer.weight, layer.bias])]))
        return torch.stack(found).numpy()

    return side(pool), side(asked), naive(pool), naive(asked)


def test_the_first_sample_of_a_class_has_the_largest_product_with_the_target(sides):
    pool, queries, atoms, asked = sides
    selection = GradientMatchingSelector().select(pool, queries, 2)
    for c in (3, 8):
        mine = (pool.y == c).nonzero().squeeze(1).numpy()
        target = asked[(queries.y == c).numpy()].sum(0)
        first = next(i for i in selection.indices.tolist() if pool.y[i] == c)
        assert first == mine[np.argmax(atoms[mine] @ target)]


def test_weights_and_residual_are_those_of_non_negative_least_squares_on_what_was_chosen(sides):
    pool, queries, atoms, asked = sides
    selection = GradientMatchingSelector(ridge=0.0).select(pool, queries, 10)
    left = whole = 0.0
    for c in (3, 8):
        chosen = [(i, w) for i, w in zip(selection.indices.tolist(), selection.weights.tolist(), strict=True)]
        chosen = [(i, w) for i, w in chosen if pool.y[i] == c]
        target = asked[(queries.y == c).numpy()].sum(0)
        weights, residual = nnls(atoms[[i for i, _ in chosen]].T, target)
        np.testing.assert_allclose([w for _, w in chosen], weights, rtol=1e-5, atol=1e-6)
        left, whole = left + residual**2, whole + target @ target
    assert selection.facts["relative_residual"] == pytest.approx(math.sqrt(left / whole), rel=1e-6)


def test_a_class_that_the_pool_lacks_is_left_whole(sides):
    pool, queries, _, asked = sides
    rows = (pool.y != 8).nonzero().squeeze(1)
    without = Pool(pool.y[rows], features=pool.features[rows], gradients=pool.gradients.take(rows))
    both, one = (GradientMatchingSelector().select(side, queries, 8) for side in (pool, without))
    lost = np.linalg.norm(asked[(queries.y == 8).numpy()].sum(0))
    whole = sum(np.linalg.norm(asked[(queries.y == c).numpy()].sum(0)) ** 2 for c in (3, 8))
    assert one.facts["relative_residual"] > lost / math.sqrt(whole) > both.facts["relative_residual"]


def test_without_its_penalty_func_feat_is_gradient_matching(sides):
    pool, queries, *_ = sides
    plain = GradientMatchingSelector().select(pool, queries, 12)
    same = FuncFeatSelector(psi_ridge=0.0, rule="residual").select(pool, queries, 12)
    assert torch.equal(plain.indices, same.indices) and torch.equal(plain.weights, same.weights)


@pytest.mark.parametrize("rule", ["residual", "penalised"])
def test_a_larger_penalty_brings_samples_nearer_to_the_queries(sides, rule):
    pool, queries, *_ = sides
    distances, _ = psi_by_class(pool, queries)
    weighed = []
    for penalty in (0.0, 1000.0):
        selection = FuncFeatSelector(psi_ridge=penalty, rule=rule).select(pool, queries, 12)
        assert selection.facts["mean_psi"] == pytest.approx(float(distances[selection.indices].mean()))
        weighed.append(float((selection.weights * distances[selection.indices]).sum() / selection.weights.sum()))
    assert weighed[0] > weighed[1]


def test_psi_is_scaled_to_a_median_of_one_by_class(sides):
    pool, queries, *_ = sides
    distances, scaled = psi_by_class(pool, queries)
    for c in pool.y.unique():
        mine = pool.y == c
        assert float(scaled[mine].median()) == (1.0 if c in queries.y else 0.0)
    assert (distances <= 2).all()


def test_penalties_below_zero_and_missing_gradients_are_refused(sides):
    pool, queries, *_ = sides
    with pytest.raises(UserError, match="ridge is -1"):
        GradientMatchingSelector(ridge=-1)
    with pytest.raises(UserError, match="psi_ridge is nan"):
        FuncFeatSelector(psi_ridge=math.nan)
    with pytest.raises(UserError, match="queries came without gradients"):
        GradientMatchingSelector().select(pool, Pool(queries.y, features=queries.features), 4)
