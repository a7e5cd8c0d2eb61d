"""The logistic regression is the one scikit-learn finds by the search that the paper names."""

import numpy as np
import pytest
import torch

from lit_core.errors import UserError
from lit_detect.functional import logistic
from lit_detect.functional.logistic import FOLDS, fit_logistic

sklearn = pytest.importorskip("sklearn")
FULL_SEARCH = True
REPEATS = logistic.REPEATS


def made_up_counts(n):
    """Counts of four kinds, some more of the first kind in the second class."""
    numbers = np.random.default_rng(0)
    labels = np.arange(n) % 2
    features = numbers.poisson([[60, 25, 10, 5]] * n + 8 * labels[:, None] * np.array([1, 0, 0, -0.3]))
    return torch.from_numpy(features).double(), torch.from_numpy(labels)


def test_the_search_is_that_of_the_paper():
    assert logistic.SOLVERS == ("newton-cg", "lbfgs", "liblinear")
    assert logistic.INVERSE_PENALTIES == (100, 10, 1, 0.1, 0.01)
    assert (FOLDS, REPEATS) == (10, 3)


@pytest.fixture(autouse=True)
def one_repeat(monkeypatch):
    monkeypatch.setattr(logistic, "REPEATS", 1)


@pytest.mark.parametrize("standardize", [False, True])
def test_it_is_what_scikit_learn_finds(standardize):
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import RepeatedStratifiedKFold, cross_val_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, labels = made_up_counts(60)
    found = fit_logistic(features, labels, standardize)

    def model(solver, c):
        regression = LogisticRegression(solver=solver, C=c, max_iter=1000)
        return make_pipeline(StandardScaler(), regression) if standardize else regression

    folds = RepeatedStratifiedKFold(n_splits=10, n_repeats=1, random_state=1)
    x, y = features.numpy(), labels.numpy()
    chosen = model(found.solver, found.inverse_penalty)
    assert found.accuracy == pytest.approx(cross_val_score(chosen, x, y, cv=folds).mean())
    assert found.accuracy >= cross_val_score(model("lbfgs", 1.0), x, y, cv=folds).mean()
    decision = chosen.fit(x, y).decision_function(x)
    assert (features @ found.weight + found.bias).tolist() == pytest.approx(decision.tolist(), abs=1e-9)
    assert found.folds == FOLDS


def test_small_classes_have_fewer_folds():
    features, labels = made_up_counts(14)
    assert fit_logistic(features, labels).folds == 7
    with pytest.raises(UserError, match="5 human and 1 machine"):
        fit_logistic(features[:6], torch.tensor([0, 0, 0, 0, 0, 1]))
