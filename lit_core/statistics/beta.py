"""The beta distribution, in plain Python: its probabilities and quantiles."""

from __future__ import annotations

import math

_TINY = 1e-300


def beta_probability(x: float, a: float, b: float) -> float:
    """Return P(X <= x) of the distribution Beta(a, b).

    For whole numbers, ``beta_probability(p, k, n - k + 1)`` is the probability of k or more hits in n trials of
    probability p. The continued fraction is that of DLMF 8.17.22, by Lentz's method.

    Args:
        x: From 0 to 1.
        a: Above 0.
        b: Above 0.
    """
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - beta_probability(1 - x, b, a)
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x) - math.log(a)
    )
    numerator, denominator = 1.0, 0.0
    value = 1.0
    for i in range(100_000):  # about the root of the larger of a and b is enough
        m = i // 2
        if i == 0:
            part = 1.0
        elif i % 2 == 0:
            part = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        else:
            part = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        denominator = 1 / (1 + part * denominator or _TINY)
        numerator = 1 + part / numerator or _TINY
        value *= numerator * denominator
        if abs(1 - numerator * denominator) < 1e-14:
            break
    return front * (value - 1)


def beta_quantile(probability: float, a: float, b: float) -> float:
    """Return x with P(X <= x) = ``probability`` of the distribution Beta(a, b), by bisection.

    Args:
        probability: From 0 to 1.
        a: 0 or more; at 0 all the mass is at 0.
        b: 0 or more; at 0 all the mass is at 1.
    """
    if a <= 0 or b <= 0:
        return float(b <= 0)
    low, high = 0.0, 1.0
    while low < (middle := (low + high) / 2) < high and high - low > 1e-13 * high:
        low, high = (middle, high) if beta_probability(middle, a, b) < probability else (low, middle)
    return (low + high) / 2
