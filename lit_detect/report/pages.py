"""Output of a report as Markdown, CSV and figures."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_utilities.core.imports import RequirementCache

from lit_core.files.paths import atomic_path, atomic_write
from lit_core.files.tables import CsvWriter, figure_text, markdown_table, markdown_text
from lit_core.screen import say
from lit_core.statistics.interval import Interval
from lit_detect.records import HUMAN, MACHINE
from lit_detect.report.evaluate import Evaluated, Value

_MATPLOTLIB = RequirementCache("matplotlib")
#: Columns of the tables in Markdown.
SHOWN = ("auroc", "tpr_at_fpr_01", "tpr_at_fpr_05", "achieved_fpr_05", "f1/machine", "recall/machine", "recall/human")
SHOWN_OF_ATTACKS = ("texts", "detected", "evasion", "recall_before", "recall_after", "evasion_at_fpr_05")
_COUNTS = ("human", "machine", "texts", "detected")
_METHOD = (
    "A higher score is machine. `tpr_at_fpr_01` and `_05` are shares of machine texts found at thresholds that 1 % and "
    "5 % of fresh human texts of the same domain pass on average; fewer than 99 and 19 human texts have no such "
    "threshold, and the intervals know that it is estimated. `evasion_at_fpr` is at the lowest score that is such a "
    "threshold, and `achieved_fpr` the rate at which fresh human texts reach it, in expectation; F1, recall and "
    "evasion are at the detector's own. Brackets hold 95 % intervals, in which texts of a pair or document count "
    "together: exact ones of shares and AUROC, what follows from such a share of F1, bootstrap ones of what attacks "
    "cost."
)


@dataclass(frozen=True)
class ReportRow:
    """A row of a table of the report.

    Args:
        detector: Name of the detector.
        table: Name of the table: ``all``, a field of conditions, ``crossed``, ``evasion`` or ``quality``.
        labels: Conditions by field.
        values: Values by name.
    """

    detector: str
    table: str
    labels: Mapping[str, str]
    values: Mapping[str, Value]


def write_csv(path: Path, rows: Sequence[ReportRow]) -> None:
    """Write all rows as CSV; a value with an interval has two further columns, ``_low`` and ``_high``."""
    flat: list[dict[str, Any]] = []
    for row in rows:
        cells: dict[str, Any] = {"detector": row.detector, "table": row.table, **row.labels}
        for name, value in row.values.items():
            cells[name] = _number(value.mean if isinstance(value, Interval) else value)
            if isinstance(value, Interval):
                cells[f"{name}_low"], cells[f"{name}_high"] = _number(value.low), _number(value.high)
        flat.append(cells)
    labels = dict.fromkeys(key for row in rows for key in ("detector", "table", *row.labels))
    columns = labels | dict.fromkeys(key for cells in flat for key in cells)
    text = io.StringIO(newline="")
    writer = CsvWriter(text, list(columns))
    writer.header()
    writer.rows(flat)
    atomic_write(path, text.getvalue())


def markdown(
    detectors: Sequence[Evaluated], rows: Sequence[ReportRow], notes: Sequence[str], pictures: Sequence[str]
) -> str:
    """Return the report as Markdown: the detectors, the notes, the tables, and the figures.

    Args:
        detectors: The detectors with their scores.
        rows: The rows of all tables.
        notes: Sentences that the reader should know.
        pictures: File names of the figures.
    """
    lines = ["# Detectors of machine-written text", "", _METHOD, ""]
    lines += [f"- {markdown_text(note)}" for note in notes] + ([""] if notes else [])
    lines += _table(
        ["detector", "is", "texts", "abstains", "own threshold", "seconds per document"],
        [
            [one.name, one.detector, len(one.records), one.abstains, f"{one.threshold:.4g}", f"{one.seconds:.3g}"]
            for one in detectors
        ],
    )
    for table in dict.fromkeys(row.table for row in rows):
        if table == "crossed":  # only in the CSV
            continue
        own = [row for row in rows if row.table == table]
        shown = {"evasion": SHOWN_OF_ATTACKS, "quality": list(own[0].values)}.get(table, SHOWN)
        title = {"all": "All clean texts", "evasion": "Attacks on texts that have their originals here"}
        title["quality"] = "What the attacks cost the text"
        labels = list(own[0].labels)
        lines += [f"## {markdown_text(title.get(table, f'By {table}'))}", ""]
        counts = [] if table in ("evasion", "quality") else ["human", "machine"]
        named = [] if table == "quality" else ["detector"]
        columns = [*labels, *named, *counts, *shown]
        cells = [
            [*(row.labels[label] for label in labels), *([row.detector] if named else [])]
            + [_shown(name, row.values.get(name, math.nan)) for name in (*counts, *shown)]
            for row in sorted(own, key=lambda row: list(row.labels.values()))
        ]
        lines += _table(columns, cells)
    for picture in pictures:
        lines += [f"![{Path(picture).stem.replace('_', ' ')}]({picture})", ""]
    return "\n".join(lines)


def draw(folder: Path, detectors: Sequence[Evaluated], rows: Sequence[ReportRow]) -> list[str]:
    """Draw the figures and write them as PNG files.

    Returns:
        Their file names. If matplotlib is missing, there are none, and a message is printed.
    """
    if not _MATPLOTLIB:
        say('Figures are left out: matplotlib is missing; pip install "lit-shift[plot]".')
        return []
    figures = {"roc.png": _roc(detectors)}
    for metric in ("tpr_at_fpr_05", "auroc"):
        figures[f"{metric}.png"] = _heat_map(rows, metric)
    for name, figure in figures.items():
        with atomic_path(folder / name) as temporary:
            figure.savefig(temporary, format="png", dpi=110)
    return list(figures)


def _roc(detectors: Sequence[Evaluated]) -> Any:
    """Draw the ROC curves of clean texts, whole and for false-positive rates below 10 %."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 4.2), layout="constrained")
    panels = figure.subplots(1, 2)
    for one in detectors:
        human, machine = (one.scores[(one.labels == kind) & ~one.attacked] for kind in (HUMAN, MACHINE))
        levels = torch.cat((human, machine)).unique().flip(0)
        x, y = (
            [0.0, *((len(scores) - torch.searchsorted(scores.sort().values, levels)) / len(scores)).tolist()]
            for scores in (human, machine)
        )
        for axes in panels:
            axes.plot(x, y, label=figure_text(one.name), drawstyle="steps-post")
    for axes, most in zip(panels, (1.0, 0.1), strict=True):
        axes.plot([0, most], [0, most], color="grey", linewidth=0.7, linestyle=":")
        axes.set(xlim=(0, most), ylim=(0, 1.01), xlabel="human texts that count as machine")
        axes.grid(alpha=0.3)
    panels[0].set(ylabel="machine texts found", title="Clean texts")
    panels[1].set(title="at low rates")
    panels[0].legend(frameon=False, fontsize="small", loc="lower right")
    return figure


def _heat_map(rows: Sequence[ReportRow], metric: str) -> Any:
    """Draw a metric of each detector under each condition as a heat map."""
    from matplotlib.figure import Figure

    rows = [row for row in rows if metric in row.values and row.table != "crossed"]
    names = list(dict.fromkeys(row.detector for row in rows))
    conditions = list(dict.fromkeys(_condition_of(row) for row in rows))
    values = [[math.nan] * len(names) for _ in conditions]
    for row in rows:
        value = row.values[metric]
        values[conditions.index(_condition_of(row))][names.index(row.detector)] = (
            value.mean if isinstance(value, Interval) else value
        )
    longest = max(map(len, conditions), default=0)
    size = (min(24.0, 2.0 + 0.075 * longest + 0.75 * len(names)), min(30.0, 1.6 + 0.3 * len(conditions)))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(values, aspect="auto", cmap="viridis", vmin=0.0, vmax=1.0)
    axes.set_xticks(range(len(names)), list(map(figure_text, names)), rotation=45, ha="right", fontsize="small")
    axes.set_yticks(range(len(conditions)), list(map(figure_text, conditions)), fontsize="small")
    for y, line in enumerate(values):
        for x, value in enumerate(line):
            if math.isfinite(value):
                colour = "white" if value < 0.6 else "black"
                axes.text(x, y, f"{value:.2f}", ha="center", va="center", color=colour, fontsize="x-small")
    axes.set(title=figure_text(metric))
    figure.colorbar(image, ax=axes)
    return figure


def _condition_of(row: ReportRow) -> str:
    return "clean" if row.table == "all" else ", ".join(f"{field} {name}" for field, name in row.labels.items())


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    return [*markdown_table(columns, rows), ""]


def _shown(name: str, value: Value) -> str:
    if isinstance(value, Interval):
        if not math.isfinite(value.mean):
            return f"– ({value.reason})" if value.reason else "–"
        return f"{value.mean:.3f}" + (f" [{value.low:.3f}, {value.high:.3f}]" if math.isfinite(value.low) else "")
    if not math.isfinite(value):
        return "–"
    return f"{value:,.0f}" if name in _COUNTS else f"{value:.3f}"


def _number(value: float) -> str:
    return f"{value:.9g}" if math.isfinite(value) else ""
