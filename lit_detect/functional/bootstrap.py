"""Bootstrap intervals: whole groups of texts are drawn again, so that twins stay together.

A statistic here is a function of how often each text was drawn: weights ``(resamples, n)`` in, values ``(resamples,)``
out, NaN where it is not defined. With all weights 1 it is the statistic of the sample.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from lit_core.errors import UserError
from lit_core.study.statistics import Interval
from lit_detect.functional.threshold import check_fpr
from lit_detect.records import HUMAN, MACHINE

Statistic = Callable[[Tensor], Tensor]
#: Weights held at a time.
_CELLS = 4_000_000


def bootstrap(
    statistic: Statistic,
    labels: Tensor,
    groups: Tensor | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return a statistic with its percentile interval; see `bootstrap_many`."""
    return bootstrap_many({"": statistic}, labels, groups, resamples, level, seed)[""]


def bootstrap_many(
    statistics: Mapping[str, Statistic],
    labels: Tensor,
    groups: Tensor | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """Return statistics of the same texts with their percentile intervals, from the same resamples.

    Groups are drawn with replacement among those that hold the same classes (human, machine, or both), so that each
    resample has both classes where the sample has.

    Args:
        statistics: The statistics by name, as functions of weights.
        labels: 0 human, 1 machine, ``(n,)``.
        groups: Number of the pair or document that each text belongs to, ``(n,)``; None takes each text alone.
        resamples: How often to draw.
        level: Confidence, between 0 and 1.
        seed: Seed of the drawing, 0 or more.

    Returns:
        The statistics of the sample, their intervals, and the number of groups; without an interval where there are
        fewer than two groups.
    """
    if resamples < 1:
        raise UserError(f"`resamples` is {resamples}, but must be 1 or more; 1000 is usual.")
    groups = torch.arange(len(labels)) if groups is None else groups
    _, groups = torch.unique(groups, return_inverse=True)
    count = int(groups.max()) + 1 if len(groups) else 0
    one = torch.ones(1, len(labels), dtype=torch.float64)
    sample = {name: float(statistic(one)) for name, statistic in statistics.items()}
    if count < 2:
        return {name: Interval(value, -torch.inf, torch.inf, count) for name, value in sample.items()}
    kinds = torch.zeros(count, dtype=torch.int64)
    for number, kind in ((HUMAN, 1), (MACHINE, 2)):
        kinds[groups[labels == number].unique()] += kind
    strata = [(kinds == kind).nonzero().flatten() for kind in kinds.unique()]
    generator = torch.Generator().manual_seed(seed)
    values: dict[str, list[Tensor]] = {name: [] for name in statistics}
    left, step = resamples, max(1, _CELLS // len(labels))
    while left:
        rows = min(left, step)
        times = torch.zeros(rows, count, dtype=torch.float64)
        for stratum in strata:
            drawn = stratum[torch.randint(len(stratum), (rows, len(stratum)), generator=generator)]
            times.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))
        weights = times[:, groups]
        for name, statistic in statistics.items():
            values[name].append(statistic(weights))
        left -= rows
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    intervals = {}
    for name, parts in values.items():
        low, high = torch.nanquantile(torch.cat(parts), ends).tolist()
        intervals[name] = Interval(sample[name], low, high, count)
    return intervals


def auroc_statistic(scores: Tensor, labels: Tensor) -> Statistic:
    """Return the AUROC, ties half, as a function of weights; see `lit_detect.functional.threshold.auroc`."""
    levels, place = torch.unique(scores.double(), return_inverse=True)

    def statistic(weights: Tensor) -> Tensor:
        human, machine = (_by_level(weights, place, labels == number, len(levels)) for number in (HUMAN, MACHINE))
        below = human.cumsum(1) - human / 2
        return (machine * below).sum(1) / (human.sum(1) * machine.sum(1))

    return statistic


def tpr_statistic(scores: Tensor, labels: Tensor, fpr: float, domains: Tensor | None = None) -> Statistic:
    """Return the share of machine texts found at a false-positive rate, as a function of weights.

    The threshold is that of `lit_detect.functional.threshold.threshold_at_fpr`, chosen again in each resample.

    Args:
        scores: Scores of texts, ``(n,)``.
        labels: 0 human, 1 machine, ``(n,)``.
        fpr: Wanted false-positive rate, 0 to below 1.
        domains: Number of the domain of each text, ``(n,)``, where each has a threshold of its own; None for one.
    """
    check_fpr(fpr)
    domains = torch.zeros_like(labels) if domains is None else domains
    parts = []
    for domain in domains.unique():
        inside = domains == domain
        levels, place = torch.unique(-scores[inside].double(), return_inverse=True)
        parts.append((inside, place, labels[inside], len(levels)))

    def statistic(weights: Tensor) -> Tensor:
        found = torch.zeros(len(weights), dtype=torch.float64)
        for inside, place, kinds, levels in parts:
            drawn = weights[:, inside]
            human, machine = (_by_level(drawn, place, kinds == number, levels) for number in (HUMAN, MACHINE))
            reached = human.cumsum(1) / human.sum(1, keepdim=True)  # NaN where no human text was drawn
            found += torch.where(reached.isnan(), reached, machine * (reached <= fpr)).sum(1)
        return found / weights[:, labels == MACHINE].sum(1)

    return statistic


def f1_statistic(decisions: Tensor, labels: Tensor, of: int = MACHINE) -> Statistic:
    """Return the F1 of a class as a function of weights; see `lit_detect.functional.threshold.class_scores`."""
    chosen, true = decisions == of, labels == of
    return ratio_statistic(2.0 * (chosen & true), 1.0 * chosen + 1.0 * true)


def ratio_statistic(part: Tensor, whole: Tensor) -> Statistic:
    """Return a sum over another sum, such as evaded over detected before, as a function of weights.

    Args:
        part: What each text adds above, ``(n,)``.
        whole: What each text adds below, ``(n,)``.
    """
    return lambda weights: (weights @ part.double()) / (weights @ whole.double())


def _by_level(weights: Tensor, place: Tensor, chosen: Tensor, levels: int) -> Tensor:
    """Return the summed weights of the chosen texts at each level of the scores, ``(resamples, levels)``."""
    sums = torch.zeros(len(weights), levels, dtype=torch.float64)
    return sums.index_add_(1, place[chosen], weights[:, chosen])
