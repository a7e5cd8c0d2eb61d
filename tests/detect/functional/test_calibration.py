"""The logistic map against scikit-learn, the interval of a rate against SciPy."""

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from lit_core.errors import UserError
from lit_detect.functional.calibration import fit_platt


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
