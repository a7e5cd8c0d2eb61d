"""The logistic map against scikit-learn, the interval of a rate against SciPy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binomtest
from sklearn.linear_model import LogisticRegression

from lit_core.errors import UserError
from lit_detect.functional.calibration import fit_platt, rate_interval
from lit_detect.functional.threshold import false_positive_rate, threshold_at_fpr


@pytest.mark.parametrize(("n_human", "n_machine", "shift", "scale"), [(200, 100, 1.0, 1.0), (30, 300, 50.0, 400.0)])
def test_the_map_is_that_of_scikit_learn_on_smoothed_targets(n_human, n_machine, shift, scale):
    random = np.random.default_rng(0)
    scores = scale * np.concatenate([random.normal(0, 1, n_human), random.normal(1.5, 1, n_machine)]) + shift
    labels = np.array([0] * n_human + [1] * n_machine)
    targets = np.where(labels == 1, (n_machine + 1) / (n_machine + 2), 1 / (n_human + 2))
    # a target t is t of a machine text and 1 - t of a human one
    standard = (scores - scores.mean()) / scores.std()
    reference = LogisticRegression(C=np.inf, tol=1e-12, max_iter=10_000).fit(
        np.tile(standard, 2)[:, None], np.repeat([1, 0], len(scores)), np.concatenate([targets, 1 - targets])
    )
    ours = fit_platt(torch.tensor(scores), torch.tensor(labels))
    theirs = reference.predict_proba(standard[:, None])[:, 1]
    np.testing.assert_allclose(ours(torch.tensor(scores)).numpy(), theirs, atol=1e-6)
    assert ours.slope > 0


def test_divided_classes_have_a_finite_map():
    labels = torch.tensor([0] * 20 + [1] * 20)
    platt = fit_platt(torch.arange(40.0), labels)
    p = platt(torch.arange(40.0))
    assert math.isfinite(platt.slope) and p[0] < 0.1 and p[-1] > 0.9
    assert float(p.sum()) == pytest.approx(20 * 21 / 22 + 20 / 22)  # the targets' sum: the intercept is fitted


def test_a_map_needs_both_classes_and_scores_that_differ():
    with pytest.raises(UserError, match="no machine text"):
        fit_platt(torch.arange(3.0), torch.zeros(3))
    with pytest.raises(UserError, match="all 4"):
        fit_platt(torch.ones(4), torch.tensor([0, 1, 0, 1]))


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 2000), st.data())
def test_the_interval_is_scipys(n, data):
    hits = data.draw(st.integers(0, n))
    theirs = binomtest(hits, n).proportion_ci(0.95, method="exact")
    assert rate_interval(hits, n) == pytest.approx((theirs.low, theirs.high), abs=1e-8)


def test_the_interval_covers_the_rate_of_a_threshold_chosen_on_the_same_texts():
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for _ in range(400):
        human = torch.rand(300, generator=generator, dtype=torch.float64)
        threshold = threshold_at_fpr(human, 0.01)
        low, high = rate_interval(round(300 * false_positive_rate(human, threshold)), 300)
        covered += low <= 1 - threshold <= high
    assert covered >= 0.95 * 400
    low, high = rate_interval(3, 300)
    assert low < beta.ppf(0.025, 4, 297) and high == pytest.approx(beta.ppf(0.975, 4, 297), abs=1e-9)


def test_hits_out_of_range_are_refused():
    with pytest.raises(UserError, match="`hits` is 5"):
        rate_interval(5, 4)
