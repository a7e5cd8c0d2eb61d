"""The files that a study writes: results.csv, a page in Markdown, figures, and the HPARAMS view of TensorBoard."""

from __future__ import annotations

import csv
import io
import math
import os
import re
import shutil
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_utilities.core.imports import RequirementCache

from lit_core.errors import did_you_mean
from lit_core.files.paths import atomic_path, atomic_write
from lit_core.study.cells import ResultRow
from lit_core.study.claims import Claim, matching, verdict
from lit_core.study.statistics import Interval, t_interval

_MATPLOTLIB = RequirementCache("matplotlib")


@dataclass(frozen=True)
class Table:
    """A table of means over seeds.

    Args:
        by: Labels that tell the rows of the table apart; all others are averaged within a seed.
        metrics: Measured columns to show.
        where: Labels of the results that are used; a list stands for any of its values.
    """

    by: list[str]
    metrics: list[str]
    where: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Figure:
    """Curves of means over seeds, with bands for their 95 % intervals, a panel per metric.

    Args:
        x: Label or measured column on the abscissa, a number.
        by: Label that tells the curves apart.
        metrics: Measured columns, each in a panel.
        where: Labels of the results that are used; a list stands for any of its values.
        log_x: Whether the abscissa is logarithmic.
    """

    x: str
    by: str
    metrics: list[str]
    where: dict[str, Any] = field(default_factory=dict)
    log_x: bool = False


Means = dict[tuple[Any, ...], dict[str, Interval]]


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


def write_results(path: Path, rows: Sequence[ResultRow]) -> None:
    """Write all rows as CSV: labels, then measured values, then the record of the cell."""
    columns = [
        dict.fromkeys(key for row in rows for key in getattr(row, part)) for part in ResultRow.__dataclass_fields__
    ]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [*columns[0], *columns[1], *columns[2]], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({**row.labels, **{k: f"{v:.9g}" for k, v in row.measured.items()}, **row.record})
    atomic_write(path, text.getvalue())


def markdown(
    title: str,
    notes: Sequence[str],
    rows: Sequence[ResultRow],
    claims: Mapping[str, Claim],
    tables: Mapping[str, Table],
    figures: Mapping[str, str],
) -> str:
    """Return the page of a study.

    Args:
        title: Its heading.
        notes: Sentences below it: how the numbers were made, what failed.
        rows: The results.
        claims: Claims by name.
        tables: Tables by heading.
        figures: Paths of pictures by heading.
    """
    lines = [f"# {title}", ""]
    for note in notes:
        lines += [note, ""]
    if claims:
        findings = {name: claim.findings(rows) for name, claim in claims.items()}
        lines += ["## Claims", "", "| claim | | verdict |", "|---|---|---|"]
        for name, claim in claims.items():
            why = f": {claim.missing.rstrip('.')}" if claim.missing else ""
            outcome = "not testable here" if claim.missing and not claim.criteria else verdict(findings[name])
            lines.append(f"| {name} | {claim.text} | **{outcome}**{why} |")
        lines += ["", "| claim | compared | mean [95 % interval] | seeds | |", "|---|---|---|---|---|"]
        for name in claims:
            for finding in findings[name]:
                result = finding.outcome + (f" ({finding.note})" if finding.note else "")
                named = ", ".join(map(str, finding.seeds)) or "–"
                lines.append(f"| {name} | {finding.what} | {finding.interval or '–'} | {named} | {result} |")
        lines += ["", "Differences, ratios and correlations are taken within each seed; intervals are Student's t.", ""]
    for heading, table in tables.items():
        found_means = means(rows, table.by, table.metrics, table.where)
        lines += [f"## {heading}", "", "| " + " | ".join([*table.by, *table.metrics, "seeds"]) + " |"]
        lines += ["|" + "---|" * (len(table.by) + len(table.metrics) + 1)]
        for key, group in found_means.items():
            shown = [_plus_minus(group.get(metric)) for metric in table.metrics]
            seeds = max((interval.n for interval in group.values()), default=0)
            lines.append("| " + " | ".join([*map(str, key), *shown, str(seeds)]) + " |")
        lines.append("")
    for heading, path in figures.items():
        lines += [f"## {heading}", "", f"![{heading}]({path})", ""]
    return "\n".join(lines)


def unknown_columns(
    rows: Sequence[ResultRow], claims: Mapping[str, Claim], tables: Mapping[str, Table], figures: Mapping[str, Figure]
) -> list[str]:
    """Return a sentence for each column that a claim, table or figure names and no result has.

    A size may leave out the grids that have a column, so this is no error.

    Args:
        rows: The results.
        claims: Claims by name.
        tables: Tables by heading.
        figures: Figures by heading.
    """
    known = {column for row in rows for column in (*row.labels, *row.measured)}
    named: dict[str, Sequence[str]] = {}
    for name, claim in claims.items():
        named[f"claims.{name}"] = [column for criterion in claim.criteria for column in criterion.columns]
    for heading, table in tables.items():
        named[f"tables.{heading}"] = [*table.by, *table.metrics, *table.where]
    for heading, figure in figures.items():
        named[f"figures.{heading}"] = [figure.x, figure.by, *figure.metrics, *figure.where]
    return [
        f"{where} names {column}, which no result has.{did_you_mean(column, known)}"
        for where, columns in named.items()
        for column in dict.fromkeys(columns)
        if column not in known
    ]


def draw(figures: Mapping[str, Figure], rows: Sequence[ResultRow], folder: Path) -> dict[str, Path]:
    """Draw the figures as PNG files.

    Returns:
        Their paths by heading; none, with a word about it, where matplotlib or what is to be drawn is missing.
    """
    if not figures or not _MATPLOTLIB:
        if figures:
            print('Figures are left out: matplotlib is missing; pip install "lit-shift[plot]".', flush=True)
        return {}
    paths = {}
    for heading, figure in figures.items():
        if not means(rows, [figure.by, figure.x], figure.metrics, figure.where):
            print(f"The figure {heading!r} is left out: no results have {figure.by} and {figure.x}.", flush=True)
            continue
        path = folder / f"{_slug(heading)}.png"
        with atomic_path(path) as temporary:
            _plot(figure, rows).savefig(temporary, format="png", dpi=110)
        paths[heading] = path
    return paths


def write_hparams(tables: Mapping[str, Table], rows: Sequence[ResultRow], folder: Path) -> None:
    """Write each row of the tables as a session of TensorBoard's HPARAMS page, instead of what was there."""
    from torch.utils.tensorboard import SummaryWriter

    shutil.rmtree(folder, ignore_errors=True)
    none = dict.fromkeys(
        (label for table in tables.values() for label in table.by), ""
    )  # shown: what all sessions have
    for heading, table in tables.items():
        for key, group in means(rows, table.by, table.metrics, table.where).items():
            labels = {"table": heading, **none, **{k: str(v) for k, v in zip(table.by, key, strict=True)}}
            values = {metric: interval.mean for metric, interval in group.items()}
            with SummaryWriter(os.fspath(folder / _slug("-".join([heading, *map(str, key)])))) as writer:
                writer.add_hparams(labels, values, run_name=".")


def _plot(figure: Figure, rows: Sequence[ResultRow]) -> Any:
    from matplotlib.figure import Figure as Canvas
    from matplotlib.ticker import ScalarFormatter

    points = means(rows, [figure.by, figure.x], figure.metrics, figure.where)
    curves = list(dict.fromkeys(name for name, _ in points))
    wide = min(2, len(figure.metrics))
    tall = math.ceil(len(figure.metrics) / wide)
    canvas = Canvas(figsize=(1.5 + 4.2 * wide, 0.6 + 3.0 * tall), layout="constrained")
    panels = canvas.subplots(tall, wide, squeeze=False, sharex=True).flatten()
    for metric, axes in zip(figure.metrics, panels, strict=False):
        for index, curve in enumerate(curves):
            line = sorted(
                (x, group[metric]) for (name, x), group in points.items() if name == curve and metric in group
            )
            style = {"color": f"C{index % 10}", "linestyle": ("-", "--", ":")[index // 10 % 3]}
            axes.plot([x for x, _ in line], [i.mean for _, i in line], marker=".", label=str(curve), **style)
            sure = [(x, i) for x, i in line if i.n > 1]
            low, high = [i.low for _, i in sure], [i.high for _, i in sure]
            axes.fill_between([x for x, _ in sure], low, high, color=style["color"], alpha=0.12, linewidth=0)
        shown = [group[metric].mean for group in points.values() if metric in group]
        if shown:  # the curves fill the panel; wide intervals of few seeds are cut
            margin = 0.3 * (max(shown) - min(shown)) or 0.1
            axes.set_ylim(min(shown) - margin, max(shown) + margin)
        if figure.log_x:
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter(ScalarFormatter())
            ticks = sorted({x for _, x in points})
            if len(ticks) < 9:  # ticks at powers of 2 would miss most of few values
                axes.set_xticks(ticks)
        axes.set(title=metric, xlabel=figure.x)
        axes.grid(alpha=0.3)
    for axes in panels[len(figure.metrics) :]:
        axes.remove()
    handles, names = panels[0].get_legend_handles_labels()
    canvas.legend(handles, names, loc="outside right upper", frameon=False)
    return canvas


def _plus_minus(interval: Interval | None) -> str:
    if interval is None:
        return "–"
    return f"{interval.mean:.3f}" + (f" ± {interval.high - interval.mean:.3f}" if interval.n > 1 else "")


def _slug(text: str) -> str:
    return re.sub(r"[^\w.]+", "-", text.lower()).strip("-")
