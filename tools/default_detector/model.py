"""The linear model of the default detector: its features, its fit, and the penalty, chosen by leaving out a domain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from default_detector.texts import Text
from lit_core.statistics.roc import tpr_interval
from lit_detect.functional.token_statistics import token_statistics
from lit_detect.records import HUMAN, MACHINE
from lit_detect.scoring.causal import TokenScores

#: Inverse penalties that are tried.
PENALTIES = (0.01, 0.1, 1.0)


def features(scores: TokenScores, tokens: int | None = None) -> Tensor:
    """Return the statistics of the first tokens of a text; None takes all."""
    first = slice(tokens)
    return token_statistics(
        scores["log_prob"][first], scores["rank"][first], scores["expected"][first], scores["variance"][first]
    )


@dataclass(frozen=True)
class Linear:
    """A fitted linear model of unscaled features."""

    weight: Tensor
    bias: float
    penalty: float

    def __call__(self, values: Tensor) -> Tensor:
        """Return the log-odds of machine of rows of features."""
        return values.double() @ self.weight + self.bias


def fit(values: Tensor, rows: Sequence[Text], use: Tensor, penalty: float | None = None) -> Linear:
    """Fit the rows that are marked; without a penalty, the one that is best where a domain is left out is taken.

    Args:
        values: Features, ``(n, f)``.
        rows: The texts.
        use: Which of them may be used, bool of shape ``(n,)``.
        penalty: Inverse penalty; None chooses.
    """
    if penalty is None:
        penalty = max(PENALTIES, key=lambda one: _left_out(values, rows, use, one))
    model: Pipeline = make_pipeline(
        StandardScaler(), LogisticRegression(C=penalty, max_iter=5000, class_weight="balanced")
    )
    labels = np.array([row.label for row in rows])
    model.fit(values[use].numpy(), labels[use.numpy()])
    scaler, classifier = model[0], model[1]
    weight = torch.from_numpy(classifier.coef_[0] / scaler.scale_).double()
    return Linear(weight, float(classifier.intercept_[0] - weight.numpy() @ scaler.mean_), penalty)


def _left_out(values: Tensor, rows: Sequence[Text], use: Tensor, penalty: float) -> float:
    """Return the mean share found at 5 % false positives over the domains with both classes, each left out."""
    domains = np.array([row.domain for row in rows])
    labels = torch.tensor([row.label for row in rows])
    found = []
    for domain in sorted({*domains[use.numpy()]}):
        own = use & torch.from_numpy(domains == domain)
        rest = use & ~own
        both = {HUMAN, MACHINE}
        if {*labels[own].tolist()} == both == {*labels[rest].tolist()}:
            scores = fit(values, rows, rest, penalty)(values[own])
            found.append(tpr_interval(scores, labels[own] == MACHINE, 0.05).mean)
    return float(np.mean(found)) if found else 0.0
