"""Noise of the Gaussian mechanism for (ε, δ)-differential privacy, calibrated exactly.

After Balle and Wang 2018, Improving the Gaussian Mechanism for Differential Privacy, arXiv 1805.06530, Theorem 8.
"""

from __future__ import annotations

import math

from lit_core.errors import check_above, require


def gaussian_delta(deviation: float, epsilon: float, sensitivity: float) -> float:
    """Return the smallest δ that Gaussian noise gives at an ε: Φ(Δ/2σ − εσ/Δ) − e^ε Φ(−Δ/2σ − εσ/Δ).

    Args:
        deviation: σ, the standard deviation of the noise in each number, above 0.
        epsilon: ε, above 0.
        sensitivity: Δ, the largest Euclidean distance by which one record can move what is released, above 0.
    """
    half, shift = sensitivity / (2 * deviation), epsilon * deviation / sensitivity
    return _normal(half - shift) - math.exp(epsilon + _log_normal(-half - shift))


def gaussian_deviation(epsilon: float, delta: float, sensitivity: float) -> float:
    """Return the smallest standard deviation of Gaussian noise that gives (ε, δ)-differential privacy.

    Args:
        epsilon: ε, above 0.
        delta: δ, above 0 and below 1.
        sensitivity: Δ, the largest Euclidean distance by which one record can move what is released, above 0.

    Raises:
        UserError: If a number is out of range.
    """
    check_above(0, epsilon=epsilon, delta=delta, sensitivity=sensitivity)
    require(delta < 1, "delta", delta, "above 0 and below 1")
    low, high = 0.0, sensitivity
    while gaussian_delta(high, epsilon, sensitivity) > delta:
        low, high = high, 2 * high
    for _ in range(100):
        middle = (low + high) / 2
        if middle > 0 and gaussian_delta(middle, epsilon, sensitivity) <= delta:
            high = middle
        else:
            low = middle
    return high


def _normal(x: float) -> float:
    return math.erfc(-x / math.sqrt(2)) / 2


def _log_normal(x: float) -> float:
    """Return log Φ(x) of a number below 0, also where Φ(x) is too small for a float."""
    if x > -30:
        return math.log(_normal(x))
    return -x * x / 2 - math.log(-x) - math.log(2 * math.pi) / 2 + math.log1p(-1 / x**2)
