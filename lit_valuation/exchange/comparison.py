"""Which of several trainings is better, and where that cannot be said.

Two things are uncertain: the training, which a t interval over seeds measures, and the few hard cases, which a
bootstrap over them measures. An order is claimed only where both intervals of a paired difference lie on one side of 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lit_core.study.statistics import Interval, t_interval

RESAMPLES = 4000
#: With fewer cases the percentile interval is far too narrow, so it is left open.
FEWEST = 10


@dataclass(frozen=True)
class Difference:
    """A paired difference of accuracies.

    Args:
        over_seeds: Its t interval over seeds.
        over_cases: Its bootstrap interval over the cases.
    """

    over_seeds: Interval
    over_cases: Interval

    @property
    def sign(self) -> int:
        """1 or -1 where both intervals say so, otherwise 0: not distinguishable."""
        low, high = (min(self.over_seeds.low, self.over_cases.low), max(self.over_seeds.high, self.over_cases.high))
        return 1 if low > 0 else -1 if high < 0 else 0


@dataclass(frozen=True)
class OwnerRank:
    """Where an owner stands.

    Args:
        name: The owner.
        accuracy: Mean accuracy on the held-out hard cases.
        gain: Its difference from the training without shared samples.
        best: The best rank that it may have: 1, and one more for each owner that is distinguishably better.
        worst: The worst one.
        alike: The owners that are not distinguishable from it.
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
    """Compare two series of trainings with the same seeds on the same cases.

    Args:
        better: Whether each case is classified correctly, ``(seeds, cases)``.
        worse: The same for the other series.
        level: Confidence of the intervals, between 0 and 1.
        seed: Seed of the bootstrap.
    """
    gain = better.double() - worse.double()
    return Difference(t_interval(gain.mean(1).tolist(), level), bootstrap(gain.mean(0), level, seed))


def bootstrap(values: Tensor, level: float = 0.95, seed: int = 0) -> Interval:
    """Return the mean of values with the percentile interval of resampled means; an open one below `FEWEST` values.

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


def rank_owners(owners: Mapping[str, Tensor], without: Tensor, level: float = 0.95) -> list[OwnerRank]:
    """Rank owners by what their samples do for the held-out hard cases, the best first.

    Args:
        owners: Whether each case is classified correctly after training with an owner's samples, ``(seeds, cases)``.
        without: The same without any.
        level: Confidence of the intervals, between 0 and 1.
    """
    order = sorted(owners, key=lambda name: -float(owners[name].double().mean()))
    signs = {(a, b): difference(owners[a], owners[b], level).sign for a in order for b in order if a != b}
    return [
        OwnerRank(
            name,
            t_interval(owners[name].double().mean(1).tolist(), level),
            difference(owners[name], without, level),
            best=1 + sum(signs[other, name] > 0 for other in order if other != name),
            worst=len(order) - sum(signs[name, other] > 0 for other in order if other != name),
            alike=tuple(other for other in order if other != name and signs[name, other] == 0),
        )
        for name in order
    ]


def verdict(found: Sequence[OwnerRank]) -> str:
    """Say what the order is, as far as there is one, and who helps at all."""
    if not found:
        return "No answer can be ranked."
    helping = [place.name for place in found if place.gain.sign > 0]
    who = f"{', '.join(helping)} distinguishably" if helping else "Nobody distinguishably"
    return f"{_order(found)} {who} {'help' if len(helping) > 1 else 'helps'}, compared with nothing shared."


def _order(found: Sequence[OwnerRank]) -> str:
    if len(found) == 1:
        return f"{found[0].name} is the only answer."
    leaders = [place.name for place in found if place.best == 1]
    if len(leaders) == len(found):
        return "The owners are not distinguishable: every interval of a difference between two of them includes 0."
    if len(leaders) == 1:
        return f"{leaders[0]} is first, and distinguishably so."
    return f"{', '.join(leaders)} come first; they are not distinguishable from each other."
