"""Means with intervals over seeds, and rank correlations, in plain Python."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from lit_core.statistics.interval import Interval


def t_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Return the mean with Student's t interval.

    Args:
        values: Independent measurements, usually one per seed.
        level: Confidence, between 0 and 1.
    """
    n, values = len(values), [float(value) for value in values]
    if n < 2:
        mean = values[0] if n else math.nan
        return Interval(mean, -math.inf, math.inf, n)
    mean = statistics.fmean(values)
    half = t_quantile((1 + float(level)) / 2, n - 1) * statistics.stdev(values) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def t_quantile(probability: float, degrees: int) -> float:
    """Return the quantile of Student's t distribution.

    Args:
        probability: From 0.5 to below 1.
        degrees: Degrees of freedom, 1 or more.
    """
    low, high = 0.0, 1.0
    while _t_probability(high, degrees) < probability:
        low, high = high, 2 * high
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if _t_probability(middle, degrees) < probability else (low, middle)
    return (low + high) / 2


def _t_probability(t: float, degrees: int) -> float:
    """Return P(T <= t) by the finite series for whole degrees of freedom (Abramowitz and Stegun 26.7.3, 26.7.4)."""
    angle = math.atan(t / math.sqrt(degrees))
    cosine, odd = math.cos(angle), degrees % 2
    term = cosine if odd else 1.0
    total = term if degrees > 1 else 0.0
    for k in range(2 + odd, degrees - 1, 2):
        term *= cosine**2 * (k - 1) / k
        total += term
    inside = math.sin(angle) * total
    within = 2 / math.pi * (angle + inside) if odd else inside  # P(-t <= T <= t)
    return (1 + within) / 2


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Return Spearman's rank correlation; nan where one side is constant."""
    rank_x, rank_y = _ranks([float(value) for value in x]), _ranks([float(value) for value in y])
    if len(set(rank_x)) < 2 or len(set(rank_y)) < 2:
        return math.nan
    return statistics.correlation(rank_x, rank_y)


def kendall(x: Sequence[float], y: Sequence[float]) -> float:
    """Return Kendall's tau-b; nan where one side is constant."""
    agreement, pairs_x, pairs_y = 0, 0, 0
    for i in range(len(x)):
        for j in range(i):
            sign_x, sign_y = _sign(float(x[i] - x[j])), _sign(float(y[i] - y[j]))
            agreement += sign_x * sign_y
            pairs_x += sign_x * sign_x
            pairs_y += sign_y * sign_y
    return agreement / math.sqrt(pairs_x * pairs_y) if pairs_x and pairs_y else math.nan


def _ranks(values: Sequence[float]) -> list[float]:
    """Return ranks from 1; equal values share the mean of theirs."""
    order = sorted(values)
    first = {value: rank for rank, value in reversed(list(enumerate(order, start=1)))}
    return [first[value] + (order.count(value) - 1) / 2 for value in values]


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
