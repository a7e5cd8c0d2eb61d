"""The mean of values that two things make uncertain at once, such as seeds and cases, each of them drawn at random.

The variance of the mean is estimated from mean squares, as in quasi-F ratios (Clark 1973, The language-as-fixed-effect
fallacy), with the degrees of freedom of Satterthwaite 1946. A t test of the rows' means alone must agree, since with
two or three rows the mixed variance can be too small by chance; and so must the number of columns that differ from 0,
since k of one sign by chance have a probability of 2^(1 - k).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from lit_core.statistics.beta import beta_probability, beta_quantile
from lit_core.statistics.interval import Interval


@dataclass(frozen=True)
class CrossedMean:
    """A mean over rows and columns.

    Args:
        interval: The mean with its interval; it is unbounded where no number of equal values could exclude 0.
        p: Two-sided p-value of a mean of 0.
    """

    interval: Interval
    p: float


def crossed_mean(values: Sequence[Sequence[float]], level: float = 0.95) -> CrossedMean:
    """Return the mean of values with an interval and a p-value for new rows and new columns.

    Args:
        values: Rows of equal length, such as one per seed with a value per case; 1 or more of each.
        level: Confidence of the interval, between 0 and 1.
    """
    rows, columns = len(values), len(values[0]) if values else 0
    if not rows or not columns:
        return CrossedMean(Interval(math.nan, -math.inf, math.inf, columns), 1.0)
    of_rows = [statistics.fmean(row) for row in values]
    of_columns = [statistics.fmean(column) for column in zip(*values, strict=True)]
    mean = statistics.fmean(of_rows)
    floor = 2.0 ** (1 - sum(value != 0 for value in of_columns))
    if rows < 2 or columns < 2 or 2.0 ** (1 - columns) > 1 - level:
        return CrossedMean(Interval(mean, -math.inf, math.inf, columns), 1.0)

    by_row = columns * statistics.variance(of_rows)
    by_column = rows * statistics.variance(of_columns)
    rest = [
        value - of_row - of_column + mean
        for row, of_row in zip(values, of_rows, strict=True)
        for value, of_column in zip(row, of_columns, strict=True)
    ]
    degrees = (rows - 1) * (columns - 1)
    residual = math.fsum(value * value for value in rest) / degrees
    both = max(by_row + by_column - residual, by_row, by_column)
    spread = by_row**2 / (rows - 1) + by_column**2 / (columns - 1) + residual**2 / degrees
    free = min(max(both**2 / spread, 1.0), columns - 1) if spread else columns - 1
    errors = [(math.sqrt(both / (rows * columns)), free), (math.sqrt(by_row / (rows * columns)), rows - 1)]

    p = max(min(floor, 1.0), *(_p_value(mean, error, degrees) for error, degrees in errors))
    half = max(error * _quantile(1 - level, degrees) for error, degrees in errors)
    low, high = mean - half, mean + half
    if p > 1 - level:
        low, high = min(low, 0.0), max(high, 0.0)
    return CrossedMean(Interval(mean, low, high, columns), p)


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm 1979): the chance of any false claim at α is at most α.

    Args:
        p: The p-values, in any order.
    """
    corrected, least = [1.0] * len(p), 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=lambda index: p[index])):
        least = max(least, min(1.0, (len(p) - rank) * p[index]))
        corrected[index] = least
    return corrected


def _p_value(mean: float, error: float, degrees: float) -> float:
    """Return P(|T| >= mean / error) of Student's t distribution; of an error of 0, whether the mean is 0."""
    if error <= 0:
        return float(mean == 0)
    t = mean / error
    return beta_probability(degrees / (degrees + t * t), degrees / 2, 0.5)


def _quantile(tails: float, degrees: float) -> float:
    """Return t with P(|T| >= t) = ``tails``."""
    x = beta_quantile(tails, degrees / 2, 0.5)
    return math.sqrt(degrees * (1 - x) / x)
