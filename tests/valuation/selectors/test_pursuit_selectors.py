"""Gradient matching, with and without the penalty on samples that look unlike the queries."""

import math

import numpy as np
import pytest
import torch
from naive_pursuit import best_weights, naive_pursuit
from scipy.optimize import nnls
from sklearn.datasets import load_digits
from torch.nn import functional as F

from lit_core.errors import UserError
from lit_valuation.functional.gradients import last_layer_gradients
from lit_valuation.functional.k_means import k_means
from lit_valuation.selectors import FuncFeatSelector, GradientMatchingSelector, Pool
from lit_valuation.selectors.base import split_budget
from lit_valuation.selectors.func_feat import psi_by_class

#: A penalty with which pursuits end early.
WEAK = 0.01


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
    plain = GradientMatchingSelector(ridge=0.01).select(pool, queries, 12)
    same = FuncFeatSelector(ridge=0.01, psi_ridge=0.0, rule="residual").select(pool, queries, 12)
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


def penalties_of(atoms):
    return np.full(len(atoms), WEAK * np.square(atoms).sum(1).mean())


def test_a_pursuit_that_ends_early_has_the_best_weights_over_all_samples(sides):
    pool, queries, atoms, asked = sides
    selection = GradientMatchingSelector(WEAK).select(pool, queries, 60)
    assert len(selection.indices) < 60
    given = torch.zeros(len(pool))
    given[selection.indices] = selection.weights
    for c in (3, 8):
        mine = (pool.y == c).numpy()
        target = asked[(queries.y == c).numpy()].sum(0)
        np.testing.assert_allclose(given[mine], best_weights(atoms[mine], target, penalties_of(atoms[mine])), atol=1e-5)


def rounds_of(atoms, free, target, budget, penalties, fill):
    """Choose by pursuits as they are written down, each with the samples that are left."""
    found = []
    while sum(len(support) for support, _ in found) < budget:
        left = budget - sum(len(support) for support, _ in found)
        support, weights, _ = naive_pursuit(atoms[free], target, left, penalties[free])
        if not support:
            break
        chosen = np.array(free)[support].tolist()
        found.append((chosen, weights))
        free = [i for i in free if i not in chosen]
        if not fill:
            break
    return found, free


def test_further_rounds_spend_the_budget_on_the_same_target(sides):
    pool, queries, atoms, asked = sides
    selection = GradientMatchingSelector(WEAK, rest="fill").select(pool, queries, 50)
    left = GradientMatchingSelector(WEAK).select(pool, queries, 50)
    counts = [selection.facts[f"selected_in_round_{number}"] for number in (1, 2)]
    assert sum(v for k, v in selection.facts.items() if k.startswith("selected")) == len(selection.indices) == 50
    assert counts[0] == len(left.indices) and counts[1] > 0
    squares = whole = 0.0
    for c in (3, 8):
        mine = (pool.y == c).nonzero().squeeze(1).tolist()
        target = asked[(queries.y == c).numpy()].sum(0)
        budget = int((pool.y[selection.indices] == c).sum())
        penalties = np.zeros(len(atoms))
        penalties[mine] = penalties_of(atoms[mine])
        rounds, _ = rounds_of(atoms, mine, target, budget, penalties, fill=True)
        assert len(rounds) > 1
        rows = [i for support, _ in rounds for i in support]
        weights = np.concatenate([of_round for _, of_round in rounds]) / len(rounds)
        ours = [i for i in selection.indices.tolist() if pool.y[i] == c]
        assert ours == rows
        given = dict(zip(selection.indices.tolist(), selection.weights.tolist(), strict=True))
        np.testing.assert_allclose([given[i] for i in rows], weights, rtol=1e-4, atol=1e-6)
        squares += np.square(target - weights @ atoms[rows]).sum()
        whole += target @ target
    assert selection.facts["relative_residual"] == pytest.approx(math.sqrt(squares / whole), rel=1e-6)


def test_no_round_chooses_a_sample_that_points_away_from_the_target(sides):
    pool, queries, atoms, asked = sides
    everything = GradientMatchingSelector(rest="fill").select(pool, queries, len(pool))
    for c in (3, 8):
        target = asked[(queries.y == c).numpy()].sum(0)
        left = sorted(set((pool.y == c).nonzero().squeeze(1).tolist()) - set(everything.indices.tolist()))
        assert (atoms[left] @ target <= 1e-9).all()


@pytest.mark.parametrize("rest", ["leave", "fill"])
def test_clusters_are_targets_of_their_own_which_share_the_budget_and_no_sample(sides, rest):
    pool, queries, atoms, asked = sides
    selection = GradientMatchingSelector(WEAK, targets="clusters", n_clusters=3, rest=rest).select(
        pool, queries, 20, seed=5
    )
    assert len(set(selection.indices.tolist())) == len(selection.indices) <= 20
    shares = split_budget(20, pool.y, queries.y)
    given = dict(zip(selection.indices.tolist(), selection.weights.tolist(), strict=True))
    left = whole = 0.0
    expected = []
    for c in (3, 8):
        free = (pool.y == c).nonzero().squeeze(1).tolist()
        penalties = np.zeros(len(atoms))
        penalties[free] = penalties_of(atoms[free])
        rows = asked[(queries.y == c).numpy()]
        labels = k_means(torch.tensor(rows), 3, seed=5).numpy()
        sizes = [int((labels == k).sum()) for k in range(labels.max() + 1)]
        parts = [0] * len(sizes)
        for _ in range(shares[c]):  # Sainte-Laguë: each sample to the cluster with the largest quotient
            parts[max(range(len(sizes)), key=lambda k: (sizes[k] / (2 * parts[k] + 1), -k))] += 1
        for k, part in enumerate(parts):
            target = rows[labels == k].sum(0)
            rounds, free = rounds_of(atoms, free, target, part, penalties, rest == "fill")
            support = [i for chosen, _ in rounds for i in chosen]
            weights = np.concatenate([np.zeros(0), *[of_round for _, of_round in rounds]]) / max(1, len(rounds))
            np.testing.assert_allclose([given[i] for i in support], weights, rtol=1e-4, atol=1e-6)
            left += np.square(target - weights @ atoms[support]).sum()
            whole += target @ target
            expected += support
    assert sorted(expected) == sorted(selection.indices.tolist())
    assert selection.facts["relative_residual"] == pytest.approx(math.sqrt(left / whole), rel=1e-6)


def test_choices_that_are_not_known_are_refused():
    for argument, words in [
        ({"targets": "clases"}, "targets is 'clases', but must be class or clusters"),
        ({"rest": "drop"}, "rest is 'drop', but must be leave or fill"),
        ({"n_clusters": 0}, "n_clusters is 0"),
    ]:
        with pytest.raises(UserError, match=words):
            GradientMatchingSelector(**argument)
