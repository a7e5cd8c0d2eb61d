"""The conformal rule: how many human texts may score as high as a text that is called machine.

A fresh human text is as likely to take any place among n human texts as any other. So the p-value of a text,
(1 + number of human scores at or above its own) / (n + 1), is at most p with probability p or less for a human text,
whatever the detector and the distribution of its scores (Vovk, Gammerman and Shafer 2005). A text is machine if its
p-value is at most ``fpr``: then at most floor(fpr (n + 1)) - 1 human scores are at or above it.

That rate holds in expectation: on average over the human texts that were drawn for the calibration. For those at hand,
if at most k of n may be at or above, the true rate is distributed as Beta(k + 1, n - k), or lower with ties (Vovk 2012,
Conditional validity of inductive conformal predictors). A confidence asks for a k at which that rate is at most ``fpr``
with this probability.
"""

from __future__ import annotations

import math
import sys

import torch
from torch import Tensor

from lit_core.errors import UserError
from lit_core.statistics.beta import beta_probability
from lit_detect.functional.threshold import check_finite


def check_rates(fpr: float, confidence: float | None = None) -> None:
    """Raise an error if a false-positive rate or a confidence is not between 0 and 1.

    Raises:
        UserError: If one is 0 or less, or 1 or more.
    """
    if not 0 < fpr < 1:
        raise UserError(
            f"`fpr` is {fpr}, but it is a share of human texts; give one above 0 and below 1, such as 0.01."
        )
    if confidence is not None and not 0 < confidence < 1:
        raise UserError(
            f"`confidence` is {confidence}, but it is a probability; give one above 0 and below 1, such as 0.95, or "
            "null for a rate that holds in expectation."
        )


def allowed_above(n: int, fpr: float, confidence: float | None = None) -> int:
    """Return how many of n human scores may be at or above that of a text that is called machine.

    Args:
        n: Number of human texts, 0 or more.
        fpr: False-positive rate, above 0 and below 1.
        confidence: Probability that the true rate is at most ``fpr``; None bounds the rate in expectation.

    Returns:
        The number, from 0 to n - 1; -1 if n is too small to call any text machine.
    """
    check_rates(fpr, confidence)
    rank = math.floor(fpr * (n + 1))
    rank += (rank + 1) / (n + 1) <= fpr  # the product may be rounded down: 0.29 * 100 is below 29
    most = min(rank, n) - 1
    if confidence is None:
        return most
    low, high = -1, n - 1  # the probability falls with k
    while low < high:
        k = (low + high + 1) // 2
        low, high = (k, high) if beta_probability(fpr, k + 1, n - k) >= confidence else (low, k - 1)
    return low


def texts_needed(fpr: float, confidence: float | None = None) -> int:
    """Return the smallest number of human texts with which a text can be called machine at all.

    Args:
        fpr: False-positive rate, above 0 and below 1.
        confidence: As in `allowed_above`.
    """
    check_rates(fpr, confidence)
    n = math.ceil(1 / fpr - 1 if confidence is None else math.log1p(-confidence) / math.log1p(-fpr))
    n = max(1, n - 1)  # rounding may be off by one
    while allowed_above(n, fpr, confidence) < 0:
        n += 1
    return n


def p_values(human: Tensor, scores: Tensor) -> Tensor:
    """Return the conformal p-value of each score, float64 of shape ``(m,)``.

    Args:
        human: Scores of human texts, ``(n,)``.
        scores: Scores of texts to judge, ``(m,)``.
    """
    below = torch.searchsorted(human.double().sort().values, scores.double())
    return (1 + len(human) - below).double() / (len(human) + 1)


def threshold_at_fpr(human: Tensor, fpr: float, confidence: float | None = None) -> float:
    """Return the smallest threshold, a score at or above which means machine, that keeps a false-positive rate.

    It is the float64 that follows the human score of rank k + 1 from above, where k is `allowed_above`, but none so
    small (subnormal) that a processor may be set to take it for 0. Human texts with equal scores are all on the same
    side of it.

    Args:
        human: Scores of human texts, ``(n,)``.
        fpr: Rate at which fresh human texts may be called machine, above 0 and below 1.
        confidence: Probability with which that holds; None for a rate that holds in expectation.

    Returns:
        The threshold; infinity if there are too few human texts.

    Raises:
        UserError: If a score is not finite, or a rate is out of its range.
    """
    check_finite(human, "scores of human texts")
    allowed = allowed_above(len(human), fpr, confidence)
    if allowed < 0:
        return math.inf
    score, tiny = float(human.double().sort(descending=True).values[allowed]), sys.float_info.min
    if abs(score) < tiny:
        return tiny
    threshold = math.nextafter(score, math.inf)
    return 0.0 if abs(threshold) < tiny else threshold


def expected_fpr(human: Tensor, threshold: float) -> float:
    """Return the rate at which a fresh human text reaches a threshold that was fixed on these, at most, in expectation.

    It is (1 + number of human scores at or above the threshold) / (n + 1).

    Args:
        human: Scores of human texts, ``(n,)``.
        threshold: A threshold of `threshold_at_fpr`; 0 is returned of infinity.
    """
    if threshold == math.inf:
        return 0.0
    return (1 + int((human.double() >= threshold).sum())) / (len(human) + 1)


def discoveries(p: Tensor, fdr: float) -> Tensor:
    """Return which p-values are discoveries by the rule of Benjamini and Hochberg (1995), bool of shape ``(m,)``.

    If R of m texts are called machine and p of none exceeds fdr R / m, the expected share of human texts among them is
    at most ``fdr``. That holds also for conformal p-values that share their human texts (Bates et al. 2023, Testing for
    outliers with conformal p-values), and where texts are left out by a further bound on p: give those infinity.

    Args:
        p: p-values, ``(m,)``; infinity for a text that is judged but must not be a discovery.
        fdr: False discovery rate, above 0 and below 1.
    """
    ordered = p.double().sort().values
    passing = (ordered <= fdr * torch.arange(1, len(p) + 1, dtype=torch.float64) / max(len(p), 1)).nonzero()
    return p <= ordered[passing[-1]] if len(passing) else torch.zeros(len(p), dtype=torch.bool)
