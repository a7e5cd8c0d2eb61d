"""The rows of a study's results: choosing them by their labels, and averaging them over seeds."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lit_core.statistics.interval import Interval
from lit_core.statistics.means import t_interval

Means = dict[tuple[Any, ...], dict[str, Interval]]


@dataclass(frozen=True)
class ResultRow:
    """A row of the results: one set of measured values.

    Args:
        labels: What identifies them: the grid, the seed, the cell's values, and the labels of the function's row.
        measured: The values.
        record: Cell, hash of its config, hash of the data, version of the code.
    """

    labels: Mapping[str, Any]
    measured: Mapping[str, float]
    record: Mapping[str, str]


def matching(rows: Sequence[ResultRow], labels: Mapping[str, Any]) -> list[ResultRow]:
    """Return the rows with some labels; a list stands for any of its values."""

    def fits(row: ResultRow) -> bool:
        own = row.labels
        return all(own.get(k) in v if isinstance(v, list) else k in own and own[k] == v for k, v in labels.items())

    return [row for row in rows if fits(row)]


def measured(rows: Sequence[ResultRow], metric: str) -> list[tuple[ResultRow, float]]:
    """Return the rows that measured a metric, with its value."""
    return [(row, row.measured[metric]) for row in rows if math.isfinite(row.measured.get(metric, math.nan))]


def parts_of(
    rows: Sequence[ResultRow], each: Sequence[str], where: Mapping[str, Any]
) -> list[tuple[list[ResultRow], dict[str, Any]]]:
    """Return the rows of each combination of some labels' values, with the labels that say so; all rows without any."""
    parts: dict[tuple[Any, ...], list[ResultRow]] = {} if each else {(): list(rows)}
    for row in rows if each else ():
        parts.setdefault(tuple(row.labels.get(label) for label in each), []).append(row)
    if not parts:
        return [([], dict(where))]
    return [(part, {**where, **dict(zip(each, values, strict=True))}) for values, part in parts.items()]


def means(rows: Sequence[ResultRow], by: Sequence[str], metrics: Sequence[str], where: Mapping[str, Any]) -> Means:
    """Return mean and interval over seeds of each metric, by labels, in the order of the rows.

    Args:
        rows: The results.
        by: Labels, or measured columns such as a length; rows that lack one are left out, and what agrees in all of
            them is averaged within a seed.
        metrics: Measured columns.
        where: Labels of the rows that are used.
    """
    groups: dict[tuple[Any, ...], dict[str, dict[int, list[float]]]] = {}
    for row in matching(rows, where):
        known = {**row.measured, **row.labels}
        if not all(label in known for label in by):
            continue
        group = groups.setdefault(tuple(known[label] for label in by), {})
        for metric in metrics:
            value = row.measured.get(metric, math.nan)
            if math.isfinite(value):
                group.setdefault(metric, {}).setdefault(row.labels["seed"], []).append(value)
    return {
        key: {metric: t_interval([statistics.fmean(v) for v in seeds.values()]) for metric, seeds in group.items()}
        for key, group in groups.items()
    }


def slug(text: str) -> str:
    """Return a part of a file name for a heading."""
    return re.sub(r"[^\w.]+", "-", text.lower()).strip("-")
