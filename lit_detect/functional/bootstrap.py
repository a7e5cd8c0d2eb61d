"""Bootstrap intervals of means and ratios over texts, where whole groups of texts are resampled.

They are for what has no interval of its own, such as a number of edits. Shares, F1, AUROC and true-positive rates have
intervals that hold also for few texts: `lit_core.statistics`.

A `Statistic` maps weights ``(resamples, n)``, which tell how often each text was drawn, to values ``(resamples,)``. It
is NaN where it is not defined. With all weights 1 it is the statistic of the sample.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from lit_core.errors import check_at_least
from lit_core.statistics.interval import Interval
from lit_detect.records import HUMAN, MACHINE

Statistic = Callable[[Tensor], Tensor]
#: Largest number of weights in memory at once.
_CELLS = 4_000_000


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


def ratio_statistic(part: Tensor, whole: Tensor) -> Statistic:
    """Return a ratio of two sums over texts, such as evaded by detected texts, as a function of weights.

    Args:
        part: Summand of each text in the numerator, ``(n,)``.
        whole: Summand of each text in the denominator, ``(n,)``.
    """
    return lambda weights: (weights @ part.double()) / (weights @ whole.double())
