"""Platt's map from scores to probabilities."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_core.errors import UserError
from lit_detect.functional.threshold import check_scores
from lit_detect.records import HUMAN, MACHINE


class Platt(NamedTuple):
    """A logistic map from scores to the probability of machine: ``1 / (1 + exp(-(slope * score + intercept)))``.

    Args:
        slope: Log-odds of machine per unit of the score.
        intercept: Log-odds of machine at a score of 0.
    """

    slope: float
    intercept: float

    def __call__(self, scores: Tensor) -> Tensor:
        """Return the probability of machine of each score, float64."""
        return torch.sigmoid(self.slope * scores.double() + self.intercept)


def fit_platt(scores: Tensor, labels: Tensor) -> Platt:
    """Fit Platt's logistic map with his smoothed targets.

    The target of a text of a class with n texts is (n + 1) / (n + 2) instead of 1, so the map stays finite if the
    scores separate the classes completely. The convex loss is minimised by Newton's method, where each step is halved
    until the loss falls (Lin, Lin and Weng 2007, A note on Platt's probabilistic outputs for support vector machines).

    Args:
        scores: Scores of texts, ``(n,)``.
        labels: 0 human, 1 machine, ``(n,)``; both must occur.

    Raises:
        UserError: If a class is missing, a score is not finite, or all scores are equal.
    """
    check_scores(scores)
    counts = [int((labels == number).sum()) for number in (HUMAN, MACHINE)]
    if 0 in counts:
        missing = "human" if not counts[HUMAN] else "machine"
        raise UserError(f"A map to probabilities needs both classes, but there is no {missing} text. Add such texts.")
    targets = torch.where(labels == MACHINE, (counts[1] + 1) / (counts[1] + 2), 1 / (counts[0] + 2)).double()
    mean, scale = scores.double().mean(), scores.double().std()
    design = torch.stack([(scores.double() - mean) / scale, torch.ones(len(scores), dtype=torch.float64)], 1)

    def loss(weights: Tensor) -> float:
        return float(F.binary_cross_entropy_with_logits(design @ weights, targets, reduction="sum"))

    weights = torch.tensor([0.0, math.log((counts[1] + 1) / (counts[0] + 1))], dtype=torch.float64)
    for _ in range(100):
        p = torch.sigmoid(design @ weights)
        gradient = design.T @ (p - targets)
        if float(gradient.abs().max()) < 1e-10 * len(scores):
            break
        hessian = design.T @ (design * (p * (1 - p))[:, None]) + 1e-12 * torch.eye(2, dtype=torch.float64)
        step, size, before = torch.linalg.solve(hessian, gradient), 1.0, loss(weights)
        while size > 1e-10 and loss(weights - size * step) > before:
            size /= 2
        weights = weights - size * step
    slope = float(weights[0] / scale)
    return Platt(slope, float(weights[1]) - slope * float(mean))


def check_rising(platt: Platt, detector: str, hint: str) -> None:
    """Raise an error if the probability of machine does not increase with the score.

    Args:
        platt: The map.
        detector: Name of the detector whose scores were mapped.
        hint: What the user can do, as the end of the error message.

    Raises:
        UserError: If the slope is not positive. A score above the threshold would have a probability below one half.
    """
    if not platt.slope > 0:
        raise UserError(
            f"{detector} gives the machine texts no higher scores than the human ones (slope {platt.slope:.3g} of the "
            f"map to probabilities), so no threshold on its score tells them apart; {hint}."
        )
