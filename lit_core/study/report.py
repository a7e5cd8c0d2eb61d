"""The files that a study writes beside its figures: results.csv and a page in Markdown."""

from __future__ import annotations

import io
import math
import os
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lit_core.errors import did_you_mean
from lit_core.files.paths import atomic_write
from lit_core.files.tables import CsvWriter, markdown_table, markdown_text, text_table
from lit_core.statistics.interval import Interval
from lit_core.study.claims import Claim
from lit_core.study.figures import Figure
from lit_core.study.findings import verdict
from lit_core.study.rows import ResultRow, means


@dataclass(frozen=True)
class Table:
    """A table of means over seeds.

    Args:
        by: Labels that tell the rows of the table apart; all others are averaged within a seed.
        metrics: Measured columns to show.
        where: Labels of the results that are used; a list stands for any of its values.
        rank_by: Metric by which the rows are ranked, the highest first; such a table is also shown on the screen. None
            keeps the order of the results.
        beside: Labels that take the place of those in `where` for a further row, the baseline of a ranking; empty for
            none.
        terms: What the columns mean, shown below the table.
    """

    by: list[str]
    metrics: list[str]
    where: dict[str, Any] = field(default_factory=dict)
    rank_by: str | None = None
    beside: dict[str, Any] = field(default_factory=dict)
    terms: dict[str, str] = field(default_factory=dict)

    def cells(self, rows: Sequence[ResultRow]) -> list[list[Any]]:
        """Return the header and the rows: mean and half width of the 95 % interval over seeds of each metric."""
        found = list(means(rows, self.by, self.metrics, self.where).items())
        if self.rank_by is not None:
            ranked = self.rank_by
            found.sort(key=lambda item: -item[1][ranked].mean if ranked in item[1] else math.inf)
        if self.beside:
            label = ", ".join(map(str, self.beside.values()))
            baseline = means(rows, [], self.metrics, {**self.where, **self.beside})
            found += [((label, *[""] * (len(self.by) - 1)), group) for group in baseline.values()]
        lines: list[list[Any]] = [[*self.by, *self.metrics, "seeds"]]
        for key, group in found:
            seeds = max((interval.n for interval in group.values()), default=0)
            lines.append([*key, *(_plus_minus(group.get(metric)) for metric in self.metrics), seeds])
        return lines


def screen_lines(tables: Mapping[str, Table], rows: Sequence[ResultRow]) -> list[str]:
    """Return the tables that rank, each with at most ten rows and what its columns mean.

    Args:
        tables: Tables by heading.
        rows: The results.
    """
    lines: list[str] = []
    for heading, table in tables.items():
        if table.rank_by is not None:
            terms = (textwrap.wrap(f"{name}: {text}", 80, subsequent_indent="  ") for name, text in table.terms.items())
            cells = table.cells(rows)
            baseline = cells[11:][-1:] if table.beside else []
            lines += ["", heading, *text_table([*cells[:11], *baseline]), *(line for term in terms for line in term)]
    return lines


def write_results(path: Path, rows: Sequence[ResultRow]) -> None:
    """Write all rows as CSV: labels, then measured values, then the record of the cell."""
    columns = [
        dict.fromkeys(key for row in rows for key in getattr(row, part)) for part in ResultRow.__dataclass_fields__
    ]
    text = io.StringIO(newline="")
    writer = CsvWriter(text, [*columns[0], *columns[1], *columns[2]])
    writer.header()
    for row in rows:
        writer.row({**row.labels, **{k: f"{v:.9g}" for k, v in row.measured.items()}, **row.record})
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
    lines = [f"# {markdown_text(title)}", ""]
    for note in notes:
        lines += [markdown_text(note), ""]
    if claims:
        findings = {name: claim.findings(rows) for name, claim in claims.items()}
        verdicts = []
        for name, claim in claims.items():
            why = f": {claim.missing.rstrip('.')}" if claim.missing else ""
            outcome = "not testable here" if claim.missing and not claim.criteria else verdict(findings[name])
            verdicts.append([name, claim.text, f"**{outcome}**{why}"])
        lines += ["## Claims", "", *markdown_table(["claim", "", "verdict"], verdicts), ""]
        compared = []
        for name in claims:
            for finding in findings[name]:
                result = finding.outcome + (f" ({finding.note})" if finding.note else "")
                named = ", ".join(map(str, finding.seeds)) or "–"
                compared.append([name, finding.what, finding.interval or "–", named, result])
        lines += markdown_table(["claim", "compared", "mean [95 % interval]", "seeds", ""], compared)
        lines += ["", "Differences, ratios and correlations are taken within each seed; intervals are Student's t.", ""]
    for heading, table in tables.items():
        header, *cells = table.cells(rows)
        lines += [f"## {markdown_text(heading)}", "", *markdown_table(header, cells), ""]
        lines += [f"- {markdown_text(f'{name}: {text}')}" for name, text in table.terms.items()]
        lines += [""] if table.terms else []
    for heading, path in figures.items():
        lines += [f"## {markdown_text(heading)}", "", f"![{markdown_text(heading)}]({path})", ""]
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
        ranked = [table.rank_by] if table.rank_by else []
        named[f"tables.{heading}"] = [*table.by, *table.metrics, *table.where, *table.beside, *ranked]
    for heading, figure in figures.items():
        named[f"figures.{heading}"] = [figure.x, figure.by, *figure.metrics, *figure.where]
    return [
        f"{where} names {column}, which no result has.{did_you_mean(column, known)}"
        for where, columns in named.items()
        for column in dict.fromkeys(columns)
        if column not in known
    ]


def write_page(folder: Path, page: str, pictures: Sequence[Path]) -> None:
    """Write a report for TensorBoard, instead of what was there: its text, and its pictures.

    Args:
        folder: Folder of the events.
        page: The report as Markdown.
        pictures: PNG files.
    """
    from tensorboard.compat.proto.summary_pb2 import Summary
    from torch.utils.tensorboard import SummaryWriter

    shutil.rmtree(folder, ignore_errors=True)
    with SummaryWriter(os.fspath(folder)) as writer:
        writer.add_text("report", page)
        for path in pictures:
            image = Summary.Image(encoded_image_string=path.read_bytes())
            summary = Summary(value=[Summary.Value(tag=f"report/{path.stem}", image=image)])
            writer._get_file_writer().add_summary(summary)


def _plus_minus(interval: Interval | None) -> str:
    if interval is None:
        return "–"
    return f"{interval.mean:.3f}" + (f" ± {interval.high - interval.mean:.3f}" if interval.n > 1 else "")
