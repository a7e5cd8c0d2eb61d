"""Logistic regression on text features, with solver and penalty selected by cross-validation."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lit_core.errors import UserError

SOLVERS = ("newton-cg", "lbfgs", "liblinear")
INVERSE_PENALTIES = (100.0, 10.0, 1.0, 0.1, 0.01)
FOLDS, REPEATS = 10, 3


class Logistic(NamedTuple):
    """A fitted logistic regression; the log-odds of machine are ``features @ weight + bias``.

    Attributes:
        weight: Weights of the unscaled features, float64 of shape ``(f,)``.
        bias: Bias, a float64 scalar.
        solver: The selected solver.
        inverse_penalty: The selected C.
        accuracy: Mean accuracy of the selected pair over folds and repeats, from 0 to 1.
        folds: Number of folds.
    """

    weight: Tensor
    bias: Tensor
    solver: str
    inverse_penalty: float
    accuracy: float
    folds: int


def fit_logistic(features: Tensor, labels: Tensor, standardize: bool = False) -> Logistic:
    """Fit a logistic regression with an L2 penalty as Pu et al. 2023 do for GLTR.

    All pairs of a solver (newton-cg, lbfgs, liblinear) and a C (100, 10, 1, 0.1, 0.01) are compared by accuracy in
    10-fold stratified cross-validation, repeated 3 times. The best pair, the first one of equals, is fitted to all
    texts. If a class has fewer than 10 texts, the number of folds is its number of texts.

    Args:
        features: Features of the texts, finite, ``(n, f)``.
        labels: 0 human, 1 machine, ``(n,)``.
        standardize: Whether the penalty applies to features that are standardised by mean and standard deviation of the
            given texts; recommended for features of different units.

    Raises:
        UserError: If a class has fewer than 2 texts, or scikit-learn is missing.
    """
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import GridSearchCV, RepeatedStratifiedKFold
        from sklearn.pipeline import Pipeline
        from sklearn.preprocessing import StandardScaler
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # which scikit-learn brings
    except ModuleNotFoundError as error:
        raise UserError(
            'Logistic regression needs scikit-learn; install it with `pip install "lit-shift[detect]"`.'
        ) from error

    counts = torch.bincount(labels.long(), minlength=2).tolist()
    if min(counts) < 2:
        raise UserError(
            f"There are {counts[0]} human and {counts[1]} machine texts to fit, but a logistic regression needs 2 or "
            "more of each. Add texts."
        )
    folds = min(FOLDS, *counts)
    steps = Pipeline(
        [
            ("scaler", StandardScaler() if standardize else "passthrough"),
            ("model", LogisticRegression(max_iter=1000, random_state=0)),
        ]
    )
    search = GridSearchCV(
        steps,
        {"model__solver": list(SOLVERS), "model__C": list(INVERSE_PENALTIES)},
        cv=RepeatedStratifiedKFold(n_splits=folds, n_repeats=REPEATS, random_state=1),
        scoring="accuracy",
    )
    with threadpool_limits(1):  # the products are too small for several threads
        search.fit(features.double().numpy(), labels.long().numpy())
    model, scaler = search.best_estimator_["model"], search.best_estimator_["scaler"]
    weight, bias = (
        torch.from_numpy(model.coef_[0]).double(),
        torch.tensor(float(model.intercept_[0]), dtype=torch.float64),
    )
    if standardize:
        weight = weight / torch.from_numpy(scaler.scale_)
        bias = bias - weight @ torch.from_numpy(scaler.mean_)
    chosen = search.best_params_
    return Logistic(weight, bias, chosen["model__solver"], chosen["model__C"], float(search.best_score_), folds)
