"""Ranking of owners by paired differences of scores, tested over seeds and hard cases together.

Two things are uncertain: the randomness of training, and which hard cases were held out. One test takes both
(`lit_core.statistics.crossed`), and its p-values are corrected for the number of comparisons (Holm): every two owners,
and every owner with the training without shared samples. An order is claimed where the corrected p-value allows it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from torch import Tensor

from lit_core.statistics.crossed import crossed_mean, holm
from lit_core.statistics.interval import Interval
from lit_core.statistics.means import t_interval

LEVEL = 0.95


@dataclass(frozen=True)
class Difference:
    """A paired difference of scores.

    Args:
        interval: Mean with its 95 % interval for other seeds and other cases, not corrected.
        p: Two-sided p-value of no difference, corrected for the number of comparisons of the ranking.
    """

    interval: Interval
    p: float

    @property
    def sign(self) -> int:
        """1 or -1 if the difference is above or below 0 by the corrected test, otherwise 0: not distinguishable."""
        if self.p > 1 - LEVEL:
            return 0
        return 1 if self.interval.mean > 0 else -1


@dataclass(frozen=True)
class OwnerRank:
    """Rank of one owner.

    Args:
        name: The owner.
        score: Mean score on the held-out hard cases, as `case_scores` says, with its t interval over seeds.
        gain: Score minus that of the training without shared samples.
        best: The best rank that the owner may have: 1 plus the number of owners that are distinguishably better.
        worst: The worst rank that the owner may have.
        alike: The owners that are not distinguishable from this one.
    """

    name: str
    score: Interval
    gain: Difference
    best: int
    worst: int
    alike: tuple[str, ...]

    @property
    def rank(self) -> str:
        """The rank, or the range of ranks, as text."""
        return f"{self.best}" if self.best == self.worst else f"{self.best}–{self.worst}"


def rank_owners(owners: Mapping[str, Tensor], without: Tensor) -> list[OwnerRank]:
    """Rank owners by the score on the held-out hard cases after training with their samples.

    Args:
        owners: How well each case is predicted after training with an owner's samples, by owner, each of shape
            ``(seeds, cases)``; higher is better.
        without: The same for the training without shared samples.

    Returns:
        The owners' ranks, the highest score first.
    """
    order = sorted(owners, key=lambda name: -float(owners[name].double().mean()))
    compared = {pair: owners[pair[0]].double() - owners[pair[1]].double() for pair in combinations(order, 2)}
    gains = {name: owners[name].double() - without.double() for name in order}
    tested = [crossed_mean(gain.tolist(), LEVEL) for gain in (*compared.values(), *gains.values())]
    corrected = holm([test.p for test in tested])
    found = [Difference(test.interval, p) for test, p in zip(tested, corrected, strict=True)]
    signs = dict(zip(compared, (difference.sign for difference in found), strict=False))
    signs |= {(b, a): -sign for (a, b), sign in signs.items()}
    return [
        OwnerRank(
            name,
            t_interval(owners[name].double().mean(1).tolist(), LEVEL),
            gain,
            best=1 + sum(signs[other, name] > 0 for other in order if other != name),
            worst=len(order) - sum(signs[name, other] > 0 for other in order if other != name),
            alike=tuple(other for other in order if other != name and signs[name, other] == 0),
        )
        for name, gain in zip(order, found[len(compared) :], strict=True)
    ]


def verdict(ranks: Sequence[OwnerRank]) -> str:
    """Return a few sentences: which owners are distinguishable, and which of them help or harm."""
    if not ranks:
        return "No answer can be ranked."
    helping, harming = ([owner.name for owner in ranks if owner.gain.sign == sign] for sign in (1, -1))
    who = f"{', '.join(helping)} distinguishably" if helping else "Nobody distinguishably"
    sentences = [_order(ranks), f"{who} {'help' if len(helping) > 1 else 'helps'}, compared with nothing shared."]
    if harming:
        sentences.append(f"{', '.join(harming)} distinguishably {'harm' if len(harming) > 1 else 'harms'}.")
    if math.isinf(ranks[0].gain.interval.low):
        sentences.append(f"With {ranks[0].gain.interval.n} held-out hard cases nothing can be told apart.")
    return " ".join(sentences)


def _order(ranks: Sequence[OwnerRank]) -> str:
    if len(ranks) == 1:
        return f"{ranks[0].name} is the only answer."
    leaders = [owner for owner in ranks if owner.best == 1]
    names = ", ".join(owner.name for owner in leaders)
    if len(leaders) == len(ranks):
        return "The owners are not distinguishable from each other."
    if len(leaders) > 1:
        return f"Nobody is distinguishably better than {names}, who are not distinguishable from each other."
    if leaders[0].worst == 1:
        return f"{names} is first, and distinguishably so."
    return (
        f"Nobody is distinguishably better than {names}, who is not distinguishable from {', '.join(leaders[0].alike)}."
    )
