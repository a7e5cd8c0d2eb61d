"""A value with its confidence interval."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """A value, such as a mean or a share, and its two-sided confidence interval.

    Args:
        mean: The value; nan where there is none.
        low: Lower end; minus infinity where the spread is unknown.
        high: Upper end.
        n: Number of values.
        reason: Why there is no value, such as too few texts; empty where there is one.
    """

    mean: float
    low: float
    high: float
    n: int
    reason: str = ""

    def __str__(self) -> str:
        if self.reason:
            return f"– ({self.reason})"
        if not math.isfinite(self.low):
            return f"{self.mean:.3f} (no interval, n = {self.n})"
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"

    @property
    def complement(self) -> Interval:
        """The interval of 1 minus the value."""
        return Interval(1 - self.mean, 1 - self.high, 1 - self.low, self.n, self.reason)


def missing(reason: str, n: int) -> Interval:
    """Return the interval of a value that cannot be given.

    Args:
        reason: Why, such as too few texts.
        n: Number of values that there are.
    """
    return Interval(math.nan, math.nan, math.nan, n, reason)
