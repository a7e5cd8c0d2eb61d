"""Intervals of the AUROC and of the true-positive rate at a false-positive rate.

A higher score means positive, such as machine.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lit_core.errors import UserError
from lit_core.statistics.beta import beta_probability
from lit_core.statistics.interval import Interval, missing
from lit_core.statistics.proportion import effective_number, exact_ends, independent


def auroc_interval(scores: Tensor, positive: Tensor, groups: Tensor | None = None, level: float = 0.95) -> Interval:
    """Return the AUROC, where a tie counts half, with an interval that holds also where it is near or at 1.

    The AUROC is a share of pairs. Its interval is that of Clopper and Pearson with the number of independent trials
    that would vary as much. That number comes from DeLong's components of the texts, summed over groups (Obuchowski
    1997). At 1 they say nothing; there it is the number of texts of the smaller class, which is exact: as many disjoint
    pairs of texts can be formed, and all are in order.

    Args:
        scores: Scores of texts, ``(n,)``.
        positive: Whether each text is of the class with high scores, bool of shape ``(n,)``.
        groups: Id of the pair or document of each text, ``(n,)``; None makes each text a group of its own.
        level: Confidence level, between 0 and 1.

    Returns:
        The interval; with a reason instead of a value if a class has no texts.
    """
    n = len(scores)
    groups = torch.arange(n) if groups is None else groups
    high, low = scores[positive].double(), scores[~positive].double()
    if not len(high) or not len(low):
        return missing("no texts of a class", n)
    won = _below(low, high) / len(low)  # by each positive text
    lost = 1 - _below(high, low) / len(high)  # by each negative text
    value = float(won.mean())
    influence = torch.zeros(n, dtype=torch.float64)
    influence[positive], influence[~positive] = (won - value) / len(high), (lost - value) / len(low)
    least = min(independent(groups[positive]), independent(groups[~positive]))
    trials = effective_number(value, influence, groups, least, n, level)
    return Interval(value, *exact_ends(min(value * trials, trials), trials, level), n)


def tpr_interval(
    scores: Tensor,
    positive: Tensor,
    fpr: float,
    groups: Tensor | None = None,
    domains: Tensor | None = None,
    level: float = 0.95,
) -> Interval:
    """Return the true-positive rate at a false-positive rate, with an interval that knows the threshold is estimated.

    The threshold lies where a fresh negative text passes it with probability ``fpr`` on average: at the rank
    fpr · (n + 1) among the n scores of negative texts, interpolated. The interval adds two uncertainties as Zou and
    Donner (2008) do: that of the share of positive texts above a threshold, and that of the threshold, whose ends are
    the scores between which the true one lies with the given confidence, whatever the distribution. If the negative
    texts are too few to bound it above, the lower end is 0.

    Args:
        scores: Scores of texts, ``(n,)``.
        positive: Whether each text is of the class with high scores, bool of shape ``(n,)``.
        fpr: False-positive rate, above 0 and below 1.
        groups: Id of the pair or document of each text, ``(n,)``; None makes each text a group of its own.
        domains: Id of the domain of each text, ``(n,)``, if each domain has a threshold of its own; None has a single
            threshold.
        level: Confidence level, between 0 and 1.

    Returns:
        The interval; with a reason instead of a value if a domain has fewer than 1 / fpr - 1 independent negative
        texts, which have no threshold of that rate, or there are no positive texts.
    """
    if not 0 < fpr < 1:
        raise UserError(f"`fpr` is {fpr}, but must be above 0 and below 1. Give a share of texts such as 0.01.")
    n = len(scores)
    groups = torch.arange(n) if groups is None else groups
    domains = torch.zeros(n, dtype=torch.int64) if domains is None else domains
    if not bool(positive.any()):
        return missing("no texts to find", n)
    found = torch.zeros(n, dtype=torch.float64)  # by a fraction at the interpolated threshold
    below = above = 0.0
    for domain in domains[positive].unique():
        negative = (domains == domain) & ~positive
        chosen = (domains == domain) & positive
        count = independent(groups[negative]) if bool(negative.any()) else 0.0
        rank = fpr * (count + 1)
        if rank < 1 - 1e-9:
            return missing(f"{count:.0f} of {math.ceil(1 / fpr - 1 - 1e-9)} human texts", n)
        ordered = scores[negative].double().sort(descending=True).values
        ranks = (math.floor(rank + 1e-9), math.ceil(rank - 1e-9), *_rank_ends(count, fpr, level))
        at = [_above(ordered, scores[chosen].double(), own * len(ordered) / count) for own in ranks]
        weight = max(0.0, rank - ranks[0])
        found[chosen] = (1 - weight) * at[0] + weight * at[1]
        share = float(chosen.sum() / positive.sum())
        mean = float(found[chosen].mean())
        below += (share * (mean - float(at[2].mean()))) ** 2
        above += (share * (float(at[3].mean()) - mean)) ** 2
    value = float(found[positive].mean())
    deviations = (found[positive] - value) / int(positive.sum())
    least, most = independent(groups[positive]), float(positive.sum())
    trials = most if least == most else effective_number(value, deviations, groups[positive], least, most, level)
    low, high = exact_ends(min(value * trials, trials), trials, level)
    low, high = value - math.hypot(value - low, math.sqrt(below)), value + math.hypot(high - value, math.sqrt(above))
    return Interval(value, max(0.0, low), min(1.0, high), n)


def _below(ordered: Tensor, values: Tensor) -> Tensor:
    """Return how many of the one are below each of the others, where equal ones count half."""
    ordered = ordered.sort().values
    return (torch.searchsorted(ordered, values) + torch.searchsorted(ordered, values, right=True)).double() / 2


def _above(ordered: Tensor, values: Tensor, rank: float) -> Tensor:
    """Return which values are above the score of a rank from 1 among falling ones; none above rank 0, all above n."""
    place = round(rank)
    if place < 1 or place > len(ordered):
        return torch.full_like(values, float(place >= 1))
    return (values > ordered[place - 1]).double()


def _rank_ends(n: float, fpr: float, level: float) -> tuple[int, int]:
    """Return the ranks among n falling scores between which the score lies that a share ``fpr`` of all scores pass."""
    tail, low, rank = (1 - level) / 2, 0, 1
    while rank < n + 1 and (passes := beta_probability(fpr, rank, n - rank + 1)) > tail:
        if passes >= 1 - tail:
            low = rank
        rank += 1
    return low, rank
