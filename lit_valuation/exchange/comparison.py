"""Ranking of owners by paired differences of accuracy, with intervals over seeds and over hard cases.

Two things are uncertain. A t interval over seeds measures the randomness of training, a bootstrap over the hard cases
measures how few they are. An order is claimed only if both intervals of a paired difference lie on one side of 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lit_core.statistics.interval import Interval
from lit_core.statistics.means import t_interval

RESAMPLES = 4000
#: With fewer cases the percentile interval is far too narrow, so it is unbounded.
FEWEST = 10


@dataclass(frozen=True)
class Difference:
    """A paired difference of accuracies.

    Args:
        over_seeds: Mean with its t interval over seeds.
        over_cases: Mean with its bootstrap interval over the hard cases.
    """

    over_seeds: Interval
    over_cases: Interval

    @property
    def sign(self) -> int:
        """1 if both intervals lie above 0, -1 if both lie below, otherwise 0: not distinguishable."""
        low, high = (min(self.over_seeds.low, self.over_cases.low), max(self.over_seeds.high, self.over_cases.high))
        return 1 if low > 0 else -1 if high < 0 else 0


@dataclass(frozen=True)
class OwnerRank:
    """Rank of one owner.

    Args:
        name: The owner.
        accuracy: Mean accuracy on the held-out hard cases, from 0 to 1, with its t interval over seeds.
        gain: Accuracy minus that of the training without shared samples.
        best: The best rank that the owner may have: 1 plus the number of owners that are distinguishably better.
        worst: The worst rank that the owner may have.
        alike: The owners that are not distinguishable from this one.
    """

    name: str
    accuracy: Interval
    gain: Difference
    best: int
    worst: int
    alike: tuple[str, ...]

    @property
    def rank(self) -> str:
        """The rank, or the range of ranks, as text."""
        return f"{self.best}" if self.best == self.worst else f"{self.best}–{self.worst}"


def difference(better: Tensor, worse: Tensor, level: float = 0.95, seed: int = 0) -> Difference:
    """Return the paired difference in accuracy of two series of trainings with the same seeds on the same cases.

    Args:
        better: Whether each case is classified correctly, bool of shape ``(seeds, cases)``.
        worse: The same for the other series.
        level: Confidence of the intervals, between 0 and 1.
        seed: Seed of the bootstrap.
    """
    gain = better.double() - worse.double()
    return Difference(t_interval(gain.mean(1).tolist(), level), bootstrap(gain.mean(0), level, seed))


def bootstrap(values: Tensor, level: float = 0.95, seed: int = 0) -> Interval:
    """Return the mean of values with its bootstrap percentile interval, unbounded below `FEWEST` values.

    Args:
        values: One value per case, ``(cases,)``.
        level: Confidence, between 0 and 1.
        seed: Seed of the draws.
    """
    n = len(values)
    if n < FEWEST:
        return Interval(float(values.mean()) if n else math.nan, -math.inf, math.inf, n)
    draws = torch.randint(n, (RESAMPLES, n), generator=torch.Generator().manual_seed(seed))
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = values.double()[draws].mean(1).quantile(ends).tolist()
    return Interval(float(values.double().mean()), low, high, n)


def rank_owners(owners: Mapping[str, Tensor], without: Tensor, level: float = 0.95, seed: int = 0) -> list[OwnerRank]:
    """Rank owners by the accuracy on the held-out hard cases after training with their samples.

    Args:
        owners: Whether each case is classified correctly after training with an owner's samples, by owner, each bool
            of shape ``(seeds, cases)``.
        without: The same for the training without shared samples.
        level: Confidence of the intervals, between 0 and 1.
        seed: Seed of the bootstrap.

    Returns:
        The owners' ranks, the highest accuracy first.
    """
    order = sorted(owners, key=lambda name: -float(owners[name].double().mean()))
    signs = {(a, b): difference(owners[a], owners[b], level, seed).sign for a in order for b in order if a != b}
    return [
        OwnerRank(
            name,
            t_interval(owners[name].double().mean(1).tolist(), level),
            difference(owners[name], without, level, seed),
            best=1 + sum(signs[other, name] > 0 for other in order if other != name),
            worst=len(order) - sum(signs[name, other] > 0 for other in order if other != name),
            alike=tuple(other for other in order if other != name and signs[name, other] == 0),
        )
        for name in order
    ]


def verdict(ranks: Sequence[OwnerRank]) -> str:
    """Return two sentences: which owners are distinguishable, and which of them help."""
    if not ranks:
        return "No answer can be ranked."
    helping = [owner.name for owner in ranks if owner.gain.sign > 0]
    who = f"{', '.join(helping)} distinguishably" if helping else "Nobody distinguishably"
    return f"{_order(ranks)} {who} {'help' if len(helping) > 1 else 'helps'}, compared with nothing shared."


def _order(ranks: Sequence[OwnerRank]) -> str:
    if len(ranks) == 1:
        return f"{ranks[0].name} is the only answer."
    leaders = [owner.name for owner in ranks if owner.best == 1]
    if len(leaders) == len(ranks):
        return "The owners are not distinguishable: every interval of a difference between two of them includes 0."
    if len(leaders) == 1:
        return f"{leaders[0]} is first, and distinguishably so."
    return f"{', '.join(leaders)} come first; they are not distinguishable from each other."
