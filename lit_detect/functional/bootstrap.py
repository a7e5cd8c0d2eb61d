"""Bootstrap intervals of statistics of texts, where whole groups of texts are resampled.

A `Statistic` maps weights ``(resamples, n)``, which tell how often each text was drawn, to values ``(resamples,)``. It
is NaN where it is not defined. With all weights 1 it is the statistic of the sample.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from lit_core.errors import check_at_least
from lit_core.study.statistics import Interval
from lit_detect.functional.threshold import check_fpr
from lit_detect.records import HUMAN, MACHINE

Statistic = Callable[[Tensor], Tensor]
#: Largest number of weights in memory at once.
_CELLS = 4_000_000


def bootstrap(
    statistic: Statistic,
    labels: Tensor,
    groups: Tensor | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return a statistic with its bootstrap percentile interval; see `bootstrap_many`."""
    return bootstrap_many({"": statistic}, labels, groups, resamples, level, seed)[""]


def bootstrap_many(
    statistics: Mapping[str, Statistic],
    labels: Tensor,
    groups: Tensor | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """Return statistics of the same texts with their bootstrap percentile intervals, from the same resamples.

    Groups are drawn with replacement, separately among groups of human texts, of machine texts, and of both. If the
    sample has both classes, so has each resample.

    Args:
        statistics: The statistics by name, as functions of weights.
        labels: 0 human, 1 machine, ``(n,)``.
        groups: Id of the pair or document of each text, ``(n,)``; None makes each text a group of its own.
        resamples: Number of resamples, 1 or more.
        level: Confidence level, between 0 and 1.
        seed: Seed of the resampling, 0 or more.

    Returns:
        For each statistic its value on the sample, the ends of its interval, and the number of groups. With fewer than
        two groups the ends are infinite.
    """
    check_at_least(1, resamples=resamples)
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
    remaining, step = resamples, max(1, _CELLS // len(labels))
    while remaining:
        rows = min(remaining, step)
        times = torch.zeros(rows, count, dtype=torch.float64)
        for stratum in strata:
            drawn = stratum[torch.randint(len(stratum), (rows, len(stratum)), generator=generator)]
            times.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))
        weights = times[:, groups]
        for name, statistic in statistics.items():
            values[name].append(statistic(weights))
        remaining -= rows
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    intervals = {}
    for name, parts in values.items():
        low, high = torch.nanquantile(torch.cat(parts), ends).tolist()
        intervals[name] = Interval(sample[name], low, high, count)
    return intervals


def auroc_statistic(scores: Tensor, labels: Tensor) -> Statistic:
    """Return the AUROC, where a tie counts half, as a function of weights; see `lit_detect.functional.threshold.auroc`.

    Args:
        scores: Scores of texts, ``(n,)``.
        labels: 0 human, 1 machine, ``(n,)``.
    """
    levels, level_of = torch.unique(scores.double(), return_inverse=True)

    def statistic(weights: Tensor) -> Tensor:
        human, machine = (_by_level(weights, level_of, labels == number, len(levels)) for number in (HUMAN, MACHINE))
        below = human.cumsum(1) - human / 2
        return (machine * below).sum(1) / (human.sum(1) * machine.sum(1))

    return statistic


def tpr_statistic(scores: Tensor, labels: Tensor, fpr: float, domains: Tensor | None = None) -> Statistic:
    """Return the true-positive rate at a false-positive rate, as a function of weights.

    The threshold is that of `lit_detect.functional.threshold.threshold_at_fpr`, chosen again in each resample.

    Args:
        scores: Scores of texts, ``(n,)``.
        labels: 0 human, 1 machine, ``(n,)``.
        fpr: False-positive rate, 0 to below 1.
        domains: Id of the domain of each text, ``(n,)``, if each domain has a threshold of its own; None has a single
            threshold.
    """
    check_fpr(fpr)
    domains = torch.zeros_like(labels) if domains is None else domains
    parts = []
    for domain in domains.unique():
        inside = domains == domain
        levels, level_of = torch.unique(-scores[inside].double(), return_inverse=True)
        parts.append((inside, level_of, labels[inside], len(levels)))

    def statistic(weights: Tensor) -> Tensor:
        detected = torch.zeros(len(weights), dtype=torch.float64)
        for inside, level_of, classes, levels in parts:
            drawn = weights[:, inside]
            human, machine = (_by_level(drawn, level_of, classes == number, levels) for number in (HUMAN, MACHINE))
            reached = human.cumsum(1) / human.sum(1, keepdim=True)  # NaN where no human text was drawn
            detected += torch.where(reached.isnan(), reached, machine * (reached <= fpr)).sum(1)
        return detected / weights[:, labels == MACHINE].sum(1)

    return statistic


def f1_statistic(decisions: Tensor, labels: Tensor, of: int = MACHINE) -> Statistic:
    """Return the F1 of a class as a function of weights; see `lit_detect.functional.threshold.class_scores`.

    Args:
        decisions: 0 human, 1 machine, ``(n,)``.
        labels: 0 human, 1 machine, ``(n,)``.
        of: The class, 0 or 1.
    """
    chosen, true = decisions == of, labels == of
    return ratio_statistic(2.0 * (chosen & true), 1.0 * chosen + 1.0 * true)


def ratio_statistic(part: Tensor, whole: Tensor) -> Statistic:
    """Return a ratio of two sums over texts, such as evaded by detected texts, as a function of weights.

    Args:
        part: Summand of each text in the numerator, ``(n,)``.
        whole: Summand of each text in the denominator, ``(n,)``.
    """
    return lambda weights: (weights @ part.double()) / (weights @ whole.double())


def _by_level(weights: Tensor, level_of: Tensor, chosen: Tensor, levels: int) -> Tensor:
    """Return the summed weights of the chosen texts at each distinct score, ``(resamples, levels)``."""
    sums = torch.zeros(len(weights), levels, dtype=torch.float64)
    return sums.index_add_(1, level_of[chosen], weights[:, chosen])
