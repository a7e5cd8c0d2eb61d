import warnings

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_pursuit import augmented, best_weights, materialise, naive_pursuit
from pursue_share import CASES, KINDS, draw, pursue_share
from sklearn.linear_model import OrthogonalMatchingPursuit, orthogonal_mp_gram

from lit_core.errors import UserError
from lit_valuation.functional.gradients import LastLayerGradients
from lit_valuation.functional.pursuit import PursuitOptions, matching_pursuit, matching_pursuits


def check(gradients, target, budget, ridge, rule="residual", nonnegative=True, psi=None, psi_ridge=0.0):
    """Compare with the naive solver; return the pursuit and how many atoms that one dropped."""
    found = matching_pursuit(
        gradients,
        target,
        budget,
        PursuitOptions(ridge=ridge, rule=rule, nonnegative=nonnegative, relative=False, psi_ridge=psi_ridge),
        psi=psi,
    )
    rows, wanted = materialise(gradients), target.flatten().numpy()
    penalties = np.full(len(rows), ridge) + (0 if psi is None else psi_ridge * psi.numpy() ** 2)
    support, weights, dropped = naive_pursuit(rows, wanted, budget, penalties, rule, nonnegative)
    assert found.support.tolist() == support
    np.testing.assert_allclose(found.weights, weights, rtol=1e-7, atol=1e-9 * max(1, np.abs(weights).max(initial=0)))
    for t in range(len(support)):
        prefix = support[: t + 1]
        if nonnegative:
            expected = best_weights(rows[prefix], wanted, penalties[prefix])
        else:
            expected = np.linalg.lstsq(*augmented(rows[prefix], wanted, penalties[prefix]), rcond=None)[0]
        np.testing.assert_allclose(found.path[t, : t + 1], expected, rtol=1e-6, atol=1e-8 * np.abs(expected).max())
        assert not found.path[t, t + 1 :].any()
    left = [np.linalg.norm(wanted - row[: len(support)].numpy() @ rows[support]) for row in found.path]
    residuals = np.array([np.linalg.norm(wanted), *left]) / np.linalg.norm(wanted)
    np.testing.assert_allclose(found.residuals, residuals, atol=1e-7)
    return found, dropped


@pytest.mark.parametrize("rule", ["residual", "penalised"])
@pytest.mark.parametrize("nonnegative", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_support_and_weights_are_those_of_the_naive_solver(kind, nonnegative, rule):
    for seed in range(6):
        gradients, target = draw(kind, seed, bias=seed % 2 == 0)
        psi = torch.linspace(0, 1, len(gradients), dtype=torch.float64)
        check(gradients, target, 12, 0.5, rule, nonnegative)
        check(gradients, target, 12, 0.1, rule, nonnegative, psi, 2.0)


@pytest.mark.parametrize("rule", ["residual", "penalised"])
def test_dropped_atoms_are_those_of_the_naive_solver(rule):
    assert sum(check(*draw("random", seed), 16, 0.02, rule)[1] for seed in range(12)) > 2


@pytest.mark.parametrize("kind", KINDS)
def test_without_ridge_the_support_and_weights_are_those_of_the_naive_solver(kind):
    for seed in range(6):
        check(*draw(kind, seed), 12, 0.0)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 12).flatmap(
        lambda n: st.tuples(
            *(st.lists(st.lists(st.integers(-2, 2), min_size=2, max_size=2), min_size=n, max_size=n) for _ in "ab")
        )
    ),
    st.lists(st.integers(-3, 3), min_size=4, max_size=4),
    st.sampled_from(["residual", "penalised"]),
    st.booleans(),
    st.data(),
)
def test_small_whole_numbers_with_their_many_ties(factors, target, rule, nonnegative, data):
    delta, hidden = (torch.tensor(factor, dtype=torch.float64) for factor in factors)
    budget = data.draw(st.integers(1, len(delta)))
    target = torch.tensor(target, dtype=torch.float64).reshape(2, 2)
    gradients = LastLayerGradients(delta, hidden, bias=False)
    if target.any():
        check(gradients, target, budget, 0.5, rule, nonnegative)
    else:
        found = matching_pursuit(gradients, target, budget, PursuitOptions(rule=rule, nonnegative=nonnegative))
        assert len(found.support) == 0 and found.residuals.tolist() == [0]


@pytest.mark.parametrize("kind", KINDS)
def test_without_ridge_and_sign_it_is_scikit_learns(kind):
    budget = 3 if kind == "deficient" else 10
    for seed in range(4):
        gradients, target = draw(kind, seed)
        found = matching_pursuit(gradients, target, budget, PursuitOptions(ridge=0, nonnegative=False))
        rows, wanted = materialise(gradients), target.flatten().numpy()
        weights = np.zeros(len(rows))
        weights[found.support] = found.weights
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            estimator = OrthogonalMatchingPursuit(n_nonzero_coefs=budget, fit_intercept=False).fit(rows.T, wanted)
            by_gram = orthogonal_mp_gram(gradients.gram(gradients).numpy(), rows @ wanted, n_nonzero_coefs=budget)
        # Which of two equal atoms it takes is chance with scikit-learn.
        first = [int(np.flatnonzero((rows == row).all(1))[0]) for row in rows]
        for expected in (estimator.coef_, by_gram):
            np.testing.assert_allclose(*(np.bincount(first, w) for w in (weights, expected)), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", ["random", "duplicated", "unnormalised"])
def test_a_budget_of_all_atoms_ends_at_the_best_non_negative_weights(kind):
    for seed in range(6):
        gradients, target = draw(kind, seed, n=25)
        found = matching_pursuit(gradients, target, 25, PursuitOptions(ridge=0.1, relative=False))
        weights = np.zeros(25)
        weights[found.support] = found.weights
        expected = best_weights(materialise(gradients), target.flatten().numpy(), np.full(25, 0.1))
        np.testing.assert_allclose(weights, expected, rtol=1e-6, atol=1e-9)


def test_prefixes_are_runs_with_smaller_budgets_as_far_as_no_atom_was_dropped():
    cut = 0
    for seed in range(12):
        gradients, target = draw("random", seed)
        whole = matching_pursuit(gradients, target, 14, PursuitOptions(ridge=0.2))
        for budget in range(1, whole.nested + 1):
            part = matching_pursuit(gradients, target, budget, PursuitOptions(ridge=0.2))
            assert part.support.tolist() == whole.support[:budget].tolist()
            torch.testing.assert_close(part.weights, whole.path[budget - 1, :budget])
            torch.testing.assert_close(part.residuals, whole.residuals[: budget + 1])
        cut += whole.nested < len(whole.support)
    assert 0 < cut < 12  # both with and without drops


def test_duplicates_are_taken_by_number_and_once_each():
    gradients, _ = draw("random", 0, n=3)
    gradients = gradients.take([2, 0, 1, 0, 2, 1, 0])
    target = gradients.take([1]).sum() * 4
    found = matching_pursuit(gradients, target, 3)
    assert found.support.tolist()[:3] == [1, 3, 6]
    assert len(matching_pursuit(gradients, target, 7, PursuitOptions(ridge=0)).support) == 1


def test_float32_atoms_reach_the_same_residual():
    gradients, target = draw("random", 0, n=300, outputs=10, width=30)
    single = LastLayerGradients(gradients.delta.float(), gradients.hidden.float())
    found, expected = (matching_pursuit(g, target, 40) for g in (single, gradients))
    assert found.weights.dtype == torch.float64
    np.testing.assert_allclose(found.residuals[-1], expected.residuals[-1], atol=1e-3)


def test_ridge_relative_to_the_mean_squared_length():
    gradients, target = draw("unnormalised", 1)
    mean = float(gradients.squared_norms().mean())
    relative = matching_pursuit(gradients, target, 8, PursuitOptions(ridge=0.3, psi_ridge=0.2), psi=torch.ones(40))
    absolute = matching_pursuit(gradients, target, 8, PursuitOptions(ridge=0.5 * mean, relative=False))
    assert relative.support.tolist() == absolute.support.tolist()
    torch.testing.assert_close(relative.weights, absolute.weights)


def test_tolerance_ends_at_the_first_prefix_within_it():
    gradients, target = draw("random", 0)
    found = matching_pursuit(gradients, target, 30, PursuitOptions(ridge=0.01, tolerance=0.8))
    assert found.residuals[-1] <= 0.8 < found.residuals[-2]
    assert torch.equal(
        found.support, matching_pursuit(gradients, target, len(found.support), PursuitOptions(ridge=0.01)).support
    )


def test_several_targets_ridges_and_penalties_are_as_one_by_one():
    gradients, target = draw("random", 0)
    targets = torch.stack([target, target, draw("random", 1)[1], -target])
    ridges, budgets, psi = [0.1, 1.0, 0.5, 0.5], [9, 9, 5, 12], torch.rand(4, 40, dtype=torch.float64)
    together = matching_pursuits(gradients, targets, budgets, PursuitOptions(ridge=ridges, psi_ridge=1.0), psi=psi)
    for t, found in enumerate(together):
        alone = matching_pursuit(
            gradients, targets[t], budgets[t], PursuitOptions(ridge=ridges[t], psi_ridge=1.0), psi=psi[t]
        )
        assert found.support.tolist() == alone.support.tolist()
        torch.testing.assert_close(found.weights, alone.weights)


def test_classes_choose_among_their_own_atoms():
    gradients, target = draw("random", 0)
    y = torch.arange(40) % 3
    targets = torch.stack([target, 2 * target, -target])
    allowed = torch.stack([y == c for c in range(3)])
    for c, found in enumerate(matching_pursuits(gradients, targets, [4, 5, 6], allowed=allowed)):
        own = (y == c).nonzero()[:, 0]
        alone = matching_pursuit(gradients.take(own), targets[c], 4 + c)
        assert found.support.tolist() == own[alone.support].tolist()
        torch.testing.assert_close(found.weights, alone.weights)
        masked = matching_pursuit(gradients, targets[c], 4 + c, allowed=allowed[c])
        assert masked.support.tolist() == found.support.tolist()


def test_two_processes_choose_as_one(tmp_path):
    mp.spawn(pursue_share, (2, str(tmp_path / "store"), str(tmp_path)), nprocs=2)
    shares = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for case, (kind, rule, nonnegative) in enumerate(CASES):
        gradients, target = draw(kind, case)
        whole = matching_pursuits(
            gradients,
            torch.stack([target, -target]),
            8,
            PursuitOptions(rule=rule, nonnegative=nonnegative, psi_ridge=0.001),
            psi=torch.arange(40.0),
        )
        for found in zip(whole, shares[0][case], shares[1][case], strict=True):
            for share in found[1:]:
                torch.testing.assert_close(share, {field: getattr(found[0], field) for field in share})


def test_bad_input_is_refused():
    gradients, target = draw("random", 0)
    for budget in (0, -1, 41):
        with pytest.raises(UserError, match=f"budget is {budget}, but must be from 1 to the 40 atoms"):
            matching_pursuit(gradients, target, budget)
    with pytest.raises(UserError, match="from 1 to the 2 atoms"):
        matching_pursuit(gradients, target, 3, allowed=torch.arange(40) < 2)
    with pytest.raises(UserError, match="target is not finite"):
        matching_pursuit(gradients, target * torch.nan, 3)
    with pytest.raises(UserError, match=r"target has shape \(4, 6\), but must be \(4, 7\)"):
        matching_pursuit(gradients, target[:, 1:], 3)
    with pytest.raises(UserError, match="psi has shape"):
        matching_pursuit(gradients, target, 3, psi=torch.ones(3))
    with pytest.raises(UserError, match="psi is not finite"):
        matching_pursuit(gradients, target, 3, psi=torch.full((40,), torch.nan))
    with pytest.raises(UserError, match="ridge is -1"):
        matching_pursuit(gradients, target, 3, PursuitOptions(ridge=-1))
    with pytest.raises(UserError, match="tolerance is nan"):
        matching_pursuit(gradients, target, 3, PursuitOptions(tolerance=float("nan")))
    with pytest.raises(UserError, match="rule is 'best'"):
        matching_pursuit(gradients, target, 3, PursuitOptions(rule="best"))
    with pytest.raises(UserError, match="ridge has 3 values for 1 targets"):
        matching_pursuits(gradients, target[None], 3, PursuitOptions(ridge=[1.0, 2.0, 3.0]))
