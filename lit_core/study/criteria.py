"""The criteria of claims: gains, correlations, budgets and levels, with intervals over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from lit_core.errors import UserError, check_above, check_finite_numbers, require
from lit_core.statistics.interval import Interval
from lit_core.statistics.means import kendall, spearman
from lit_core.study.claims import Criterion
from lit_core.study.findings import Finding, Outcome, decided, hardest, nothing
from lit_core.study.rows import ResultRow, matching, measured, parts_of


class PairedGain(Criterion):
    """One thing measures more than another: their difference, paired within each seed, lies above a limit.

    Rows are paired that agree in all labels but those in ``of`` and ``over``; the differences are averaged within a
    seed, and the interval is over seeds. A limit below 0 makes it a test of non-inferiority.

    Args:
        metric: Column that is compared.
        of: Labels of the rows that the claim says measure more.
        over: Labels of the rows they are compared with; of several, it must hold over each.
        where: Labels of all rows that are used; a list stands for any of its values.
        above: Limit of the difference.
        each: Labels for whose every value it must hold; other labels are averaged over.
    """

    def __init__(
        self,
        metric: str,
        of: dict[str, Any],
        over: list[dict[str, Any]],
        where: dict[str, Any] | None = None,
        above: float = 0.0,
        each: Sequence[str] = (),
    ) -> None:
        if not over:
            raise UserError("over is empty, but must hold the labels of one comparison or more; name them.")
        check_finite_numbers(above=above)
        self.metric, self.of, self.over, self.where, self.above = metric, of, over, where or {}, above
        self.each = each

    def find(self, rows: Sequence[ResultRow]) -> Finding:
        """Compare the rows."""
        findings = []
        for over in self.over:
            for part, where in parts_of(matching(rows, self.where), self.each, self.where):
                what = f"{self.metric}: {_name(self.of)} − {_name(over)}{_limit(self.above, None)}{_where(where)}"
                gains = self._gains(part, over)
                none = nothing(what, "no pair of rows")
                findings.append(decided(what, gains, above=self.above) if gains else none)
        return hardest(findings)

    def _gains(self, rows: Sequence[ResultRow], over: Mapping[str, Any]) -> dict[int, float]:
        chosen = {*self.of, *over}
        base = {_identity(row, chosen): value for row, value in measured(matching(rows, over), self.metric)}
        gains: dict[int, list[float]] = {}
        for row, value in measured(matching(rows, self.of), self.metric):
            key = _identity(row, chosen)
            if key in base:
                gains.setdefault(row.labels["seed"], []).append(value - base[key])
        return {seed: statistics.fmean(values) for seed, values in gains.items()}


class Correlation(Criterion):
    """Two columns rise together, or against each other: their rank correlation within each seed is beyond a limit.

    Few points have few possible correlations, on which seeds may agree by chance: compare pairs there.

    Args:
        x: Column of the one: a label that is a number, or a metric.
        y: Column of the other.
        where: Labels of the rows that are used; a list stands for any of its values.
        above: Lower limit of the correlation that is claimed; None if an upper one is.
        below: Upper limit of the correlation that is claimed; None if a lower one is.
        method: ``spearman`` or ``kendall``.
        within: Labels whose values are not compared with each other: the mean of the correlations within each is taken.
    """

    def __init__(
        self,
        x: str,
        y: str,
        where: dict[str, Any] | None = None,
        above: float | None = None,
        below: float | None = None,
        method: Literal["spearman", "kendall"] = "spearman",
        within: Sequence[str] = (),
    ) -> None:
        _check_limits(above, below)
        self.x, self.y, self.where, self.above, self.below = x, y, where or {}, above, below
        self.within = within
        self.correlate, self.method = {"spearman": spearman, "kendall": kendall}[method], method

    def find(self, rows: Sequence[ResultRow]) -> Finding:
        """Correlate within each seed; labels other than ``x`` and the seed are averaged over."""
        groups: dict[tuple[int, tuple[str, ...]], dict[float, list[float]]] = {}
        for row, y in measured(matching(rows, self.where), self.y):
            x = {**row.labels, **row.measured}.get(self.x)
            if isinstance(x, int | float):
                group = row.labels["seed"], tuple(str(row.labels.get(label)) for label in self.within)
                groups.setdefault(group, {}).setdefault(x, []).append(y)
        correlations: dict[int, list[float]] = {}
        for (seed, _), points in groups.items():
            value = self.correlate(*_means(points)) if len(points) > 1 else math.nan
            if math.isfinite(value):
                correlations.setdefault(seed, []).append(value)
        limit = _limit(self.above, self.below)
        within = f" within each {' and '.join(self.within)}" if self.within else ""
        what = f"{self.method} of {self.x} and {self.y}{within}{limit}{_where(self.where)}"
        if not correlations:
            return nothing(what, "no seed has two different values of each")
        values = {seed: statistics.fmean(each) for seed, each in correlations.items()}
        finding = decided(what, values, above=self.above, below=self.below)
        assert finding.interval is not None
        low, high = max(-1.0, finding.interval.low), min(1.0, finding.interval.high)  # Student's may reach beyond
        return replace(finding, interval=replace(finding.interval, low=low, high=high))


class BudgetRatio(Criterion):
    """One thing needs a smaller budget than another for the same share of the full gain.

    Within each seed the curves of the metric over the budget are averaged; the budget needed is where a curve first
    reaches the share of the way from ``none`` to ``full``, between two budgets by interpolation. A curve that does not
    reach it is counted with the largest budget, and seeds where neither does are left out; the note says how many.
    Where only ``over`` reaches it the ratio is larger than counted, so then nothing is reproduced.

    Args:
        budget: Column of the budget.
        metric: Column that is compared.
        of: Labels of the rows that the claim says need less.
        over: Labels of the rows that the claim says need more.
        none: Labels of the rows without any gain.
        full: Labels of the rows with the full gain.
        share: Share of the full gain to reach, above 0 to 1.
        below: Limit of the ratio of budgets.
        where: Labels of all rows that are used; a list stands for any of its values.
    """

    def __init__(
        self,
        budget: str,
        metric: str,
        of: dict[str, Any],
        over: dict[str, Any],
        none: dict[str, Any],
        full: dict[str, Any],
        share: float = 0.95,
        below: float = 0.5,
        where: dict[str, Any] | None = None,
    ) -> None:
        require(0 < share <= 1, "share", share, "above 0 and at most 1")
        check_above(0, below=below)
        self.budget, self.metric, self.of, self.over, self.none, self.full = budget, metric, of, over, none, full
        self.share, self.below, self.where = share, below, where or {}

    def find(self, rows: Sequence[ResultRow]) -> Finding:
        """Compare the budgets; the interval is that of the mean logarithm of the ratio."""
        what = f"budget for {self.share:.0%} of the full gain in {self.metric}: {_name(self.of)} / {_name(self.over)}"
        what += f"{_limit(None, self.below)}{_where(self.where)}"
        rows = matching(rows, self.where)
        logs, neither, clipped, lost = {}, 0, 0, 0
        for seed in sorted({row.labels["seed"] for row in rows}):
            mine = matching(rows, {"seed": seed})
            none, full, of, over = (
                self._curve(matching(mine, labels)) for labels in (self.none, self.full, self.of, self.over)
            )
            if not (none and full and of and over):
                continue
            low, high = statistics.fmean(none.values()), statistics.fmean(full.values())
            needed = [reached(curve, low + self.share * (high - low)) for curve in (of, over)]
            if needed == [None, None]:
                neither += 1
                continue
            clipped += None in needed
            lost += needed[0] is None
            spent = [max(curve) if value is None else value for value, curve in zip(needed, (of, over), strict=True)]
            if not all(spent):
                return nothing(what, f"the goal is reached without any {self.budget} in seed {seed}", "undecided")
            logs[seed] = math.log(spent[0] / spent[1])
        note = f"{neither} seeds where neither reaches it left out" if neither else ""
        note += ("; " if note and clipped else "") + (f"{clipped} seeds where only one does" if clipped else "")
        if not logs:
            return nothing(what, note or "no seed has all four curves", "undecided" if neither else "not testable here")
        finding = decided(what, logs, below=math.log(self.below), note=note)
        if lost and finding.outcome == "reproduced":
            finding = replace(finding, outcome="undecided")
        assert finding.interval is not None
        mean, low, high = (
            math.exp(min(end, 700.0)) for end in (finding.interval.mean, finding.interval.low, finding.interval.high)
        )
        return replace(finding, interval=Interval(mean, low, high, len(logs)))

    def _curve(self, rows: Sequence[ResultRow]) -> dict[float, float]:
        points: dict[float, list[float]] = {}
        for row, value in measured(rows, self.metric):
            budget = row.labels.get(self.budget)
            if isinstance(budget, int | float):
                points.setdefault(budget, []).append(value)
        return dict(zip(*_means(points), strict=True)) if points else {}


class Level(Criterion):
    """A measured value is beyond a limit: its mean within each seed.

    Args:
        metric: Column that is tested.
        where: Labels of the rows that are used; a list stands for any of its values.
        above: Lower limit of the value that is claimed; None if an upper one is.
        below: Upper limit of the value that is claimed; None if a lower one is.
        each: Labels for whose every value it must hold; other labels are averaged over.
    """

    def __init__(
        self,
        metric: str,
        where: dict[str, Any] | None = None,
        above: float | None = None,
        below: float | None = None,
        each: Sequence[str] = (),
    ) -> None:
        _check_limits(above, below)
        self.metric, self.where, self.above, self.below, self.each = metric, where or {}, above, below, each

    def find(self, rows: Sequence[ResultRow]) -> Finding:
        """Average within each seed."""
        parts = parts_of(matching(rows, self.where), self.each, self.where)
        return hardest([self._find(part, where) for part, where in parts])

    def _find(self, rows: Sequence[ResultRow], where: Mapping[str, Any]) -> Finding:
        values: dict[int, list[float]] = {}
        for row, value in measured(rows, self.metric):
            values.setdefault(row.labels["seed"], []).append(value)
        limit = _limit(self.above, self.below)
        what = f"{self.metric}{limit}{_where(where)}"
        if not values:
            return nothing(what, "nothing was measured")
        means = {seed: statistics.fmean(each) for seed, each in values.items()}
        return decided(what, means, above=self.above, below=self.below)


class AtLeast(Criterion):
    """Of several criteria at least a share holds.

    Args:
        criteria: The criteria.
        what: What they have in common, such as ``detectors that lose 0.1 of F1``.
        share: Share of them that must be reproduced, above 0 and at most 1.
        each: Labels to each of whose values the criteria are applied by itself; all these count. Rows without such a
            label are left out.
    """

    def __init__(self, criteria: list[Criterion], what: str, share: float = 0.5, each: Sequence[str] = ()) -> None:
        if not criteria:
            raise UserError("criteria is empty, but a share is of one criterion or more; name them.")
        require(0 < share <= 1, "share", share, "above 0 and at most 1")
        self.criteria, self.what, self.share, self.each = criteria, what, share, each

    def find(self, rows: Sequence[ResultRow]) -> Finding:
        """Count the criteria that hold; one that is undecided may, one that can't be tested here is left out."""
        known = [row for row in rows if all(label in row.labels for label in self.each)]
        parts = parts_of(known, self.each, {})
        findings = [criterion.find(part) for part, _ in parts for criterion in self.criteria]
        tested = [finding for finding in findings if finding.outcome != "not testable here"]
        hold = sum(finding.outcome == "reproduced" for finding in tested)
        may_hold = hold + sum(finding.outcome == "undecided" for finding in tested)
        needed = self.share * len(tested)
        what = f"{self.what}: at least {self.share:.0%} of {len(tested) if self.each else len(findings)}"
        if not tested:
            return nothing(what, "none of its parts could be tested")
        outcome: Outcome = "reproduced" if hold >= needed else "undecided" if may_hold >= needed else "not reproduced"
        seeds = tuple(sorted({seed for finding in tested for seed in finding.seeds}))
        return Finding(outcome, what, seeds=seeds, note=f"{hold} of {len(tested)} reproduced")


def reached(curve: Mapping[float, float], goal: float) -> float | None:
    """Return where a curve first reaches a goal, by interpolation; None if it does not."""
    before: tuple[float, float] | None = None
    for x, y in sorted(curve.items()):
        if y >= goal:
            if before is None:
                return x
            return before[0] + (x - before[0]) * (goal - before[1]) / (y - before[1])
        before = (x, y)
    return None


def _identity(row: ResultRow, without: set[str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((key, str(value)) for key, value in row.labels.items() if key not in without))


def _means(points: Mapping[float, Sequence[float]]) -> tuple[list[float], list[float]]:
    return list(points), [statistics.fmean(values) for values in points.values()]


def _name(labels: Mapping[str, Any]) -> str:
    return " ".join(", ".join(map(str, v)) if isinstance(v, list) else str(v) for v in labels.values())


def _check_limits(above: float | None, below: float | None) -> None:
    if (above is None) == (below is None):
        raise UserError(f"above is {above} and below is {below}, but exactly one must be a number; set one of the two.")
    check_finite_numbers(above=above, below=below)


def _limit(above: float | None, below: float | None) -> str:
    return f" above {above:g}" if above is not None else f" below {below:g}"


def _where(labels: Mapping[str, Any]) -> str:
    parts = [f"{k} {', '.join(map(str, v)) if isinstance(v, list) else v}" for k, v in labels.items()]
    return f" ({'; '.join(parts)})" if parts else ""
