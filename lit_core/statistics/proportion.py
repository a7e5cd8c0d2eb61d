"""Intervals of shares: the exact one of Clopper and Pearson, and what groups of texts leave of it."""

from __future__ import annotations

from statistics import NormalDist

import torch
from torch import Tensor

from lit_core.errors import UserError
from lit_core.statistics.beta import beta_quantile
from lit_core.statistics.interval import Interval, missing
from lit_core.statistics.means import t_quantile

#: Number of independent misses at which a variance that was measured counts as much as the largest possible one.
_PRIOR = 2.0


def exact_ends(hits: float, n: float, level: float = 0.95) -> tuple[float, float]:
    """Return the confidence interval of Clopper and Pearson of a share.

    It contains the true share with at least the given confidence, whatever that share is. The score interval of Wilson
    is narrower, but near 0 and 1, where rates of false alarms and of evasion lie, it covers down to 84 %. The interval
    also holds for the false-positive rate of a threshold that was chosen so that ``hits`` of the same n human texts
    pass it: if no scores are equal, the true rate has the distribution Beta(hits + 1, n - hits), whose quantiles lie
    inside.

    Args:
        hits: Number of hits, from 0 to n; a fraction where n is an effective number.
        n: Number of independent trials, above 0.
        level: Confidence level, between 0 and 1.

    Returns:
        Lower and upper end, from 0 to 1.
    """
    if not 0 <= hits <= n or n <= 0:
        raise UserError(f"`hits` is {hits} and `n` is {n}, but n must be above 0 and hits from 0 to n. Correct them.")
    tail = (1 - level) / 2
    return beta_quantile(tail, hits, n - hits + 1), beta_quantile(1 - tail, hits + 1, n - hits)


def share_interval(hits: Tensor, groups: Tensor | None = None, level: float = 0.95) -> Interval:
    """Return the share of hits with its exact interval, where texts of a group count less than independent ones.

    With groups, the interval is that of Korn and Graubard (1998): Clopper and Pearson's with an effective number of
    texts, which `effective_number` tells.

    Args:
        hits: Whether each text is a hit, ``(n,)``.
        groups: Id of the pair or document of each text, ``(n,)``; None makes each text a group of its own.
        level: Confidence level, between 0 and 1.

    Returns:
        The interval; with a reason instead of a value if there are no texts.
    """
    n = len(hits)
    if not n:
        return missing("no texts", 0)
    count, trials = int(hits.sum()), float(n)
    if groups is not None:
        trials = effective_number(count / n, (hits.double() - count / n) / n, groups, independent(groups), n, level)
    return Interval(count / n, *exact_ends(min(count / n * trials, trials), trials, level), n)


def f1_interval(found: Tensor, true: Tensor, groups: Tensor | None = None, level: float = 0.95) -> Interval:
    """Return the F1 of a class with its interval, which follows from that of a share.

    Of the texts that are found or true, F1 counts the share x that is both as 2x / (1 + x).

    Args:
        found: Whether each text was taken for one of the class, bool of shape ``(n,)``.
        true: Whether it is one, bool of shape ``(n,)``.
        groups: Id of the pair or document of each text, ``(n,)``; None makes each text a group of its own.
        level: Confidence level, between 0 and 1.
    """
    either = found | true
    both = share_interval((found & true)[either], None if groups is None else groups[either], level)
    mean, low, high = (2 * share / (1 + share) for share in (both.mean, both.low, both.high))
    return Interval(mean, low, high, len(found), both.reason)


def independent(groups: Tensor) -> float:
    """Return how many independent texts these are worth at least: as many as groups if all are equally large."""
    sizes = torch.unique(groups, return_counts=True)[1].double()
    return float(sizes.sum() ** 2 / sizes.square().sum())


def effective_number(
    value: float, influence: Tensor, groups: Tensor, least: float, most: float, level: float = 0.95
) -> float:
    """Return the number of independent trials whose share would vary as much as a value, from its groups.

    The variance is measured between groups, with Student's t for their small number. Near 0 and 1 few groups show any
    variance, so there the largest possible one, that of ``least`` trials, counts more: at 0 and 1 alone.

    Args:
        value: The value, from 0 to 1.
        influence: What each text adds to the deviation of the value from the truth, ``(n,)``.
        groups: Id of the group of each text, ``(n,)``.
        least: Smallest number that is possible, as that of the groups.
        most: Largest number that is possible, as that of the texts.
        level: Confidence level, between 0 and 1.
    """
    number = torch.unique(groups, return_inverse=True)[1]
    misses = min(value, 1 - value) * least
    degrees = round(least) - 1
    if misses <= 0 or degrees < 1:
        return least
    sums = torch.zeros(int(number.max()) + 1, dtype=torch.float64).index_add_(0, number, influence.double())
    upper = (1 + level) / 2
    widened = (t_quantile(upper, degrees) / NormalDist().inv_cdf(upper)) ** 2 * (degrees + 1) / degrees
    measured = min(widened * float(sums.square().sum()) / (value * (1 - value)), 1 / least)
    weight = misses / (misses + _PRIOR)
    return min(1 / (weight * measured + (1 - weight) / least), most)
