"""What a ranking leaves behind: a table on the screen and as CSV, a picture, and a page in one file."""

from __future__ import annotations

import base64
import csv
import html
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning_utilities.core.imports import RequirementCache

from lit_core.errors import UserError
from lit_core.files.paths import atomic_write
from lit_core.study.statistics import Interval
from lit_valuation.exchange.comparison import OwnerRank, verdict
from lit_valuation.exchange.folder import Received
from lit_valuation.exchange.manifest import Answer, Query
from lit_valuation.training.retrain import Mode

_MATPLOTLIB = RequirementCache("matplotlib>=3.7")
_SCORES = {
    "held_out": "held-out hard cases",
    "queries": "queries",
    "hard_classes": "hard classes (test)",
    "test": "whole test set",
}
_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;width:100%;font-size:.9em}th,td{padding:.3em .6em;border-bottom:1px solid #ddd}
td+td,th+th{text-align:right}th{border-bottom:2px solid #888}img{max-width:100%}.verdict{font-size:1.2em}
small{color:#666}"""


@dataclass(frozen=True)
class RankingRow:
    """What is known of an owner.

    Args:
        name: The owner, or the training without shared samples.
        answer: The manifest of the answer; None where nothing was shared.
        scores: Mean accuracies by name of the set.
        residual: Relative residual of the gradients, without training; None where nothing was shared.
        psi: Mean distance of the features, without training; None without an encoder.
        seconds: What the trainings took.
    """

    name: str
    answer: Answer | None
    scores: Mapping[str, float]
    residual: float | None
    psi: float | None
    seconds: float


@dataclass(frozen=True)
class Ranking:
    """All that a report shows.

    Args:
        asked: The query.
        places: The owners, the best first.
        rows: What is known of each, and of the training without shared samples.
        refused: Why answers were refused, by owner.
        seeds: Number of trainings each.
        mode: How they were done.
        cases: Number of held-out hard cases.
    """

    asked: Received[Query]
    places: Sequence[OwnerRank]
    rows: Sequence[RankingRow]
    refused: Mapping[str, str]
    seeds: int
    mode: Mode
    cases: int


def check_plotting() -> None:
    """Refuse to begin what could not be drawn at the end.

    Raises:
        UserError: If matplotlib is missing.
    """
    if not _MATPLOTLIB:
        raise UserError('The picture needs `matplotlib`; install it with `pip install "lit-shift[plot]"`.')


def write_report(folder: Path, ranking: Ranking) -> None:
    """Write ranking.csv, ranking.png and report.html, and print the table."""
    table = _table(ranking)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(table)
    atomic_write(folder / "ranking.csv", text.getvalue())
    picture = _picture(ranking)
    atomic_write(folder / "ranking.png", picture)
    atomic_write(folder / "report.html", _page(ranking, table, picture))
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    print()
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(f"\n{verdict(ranking.places)}")
    print(f"\nReport       {folder / 'report.html'}")
    print(f"Table        {folder / 'ranking.csv'}")
    print("Ask for more lit-valuation query … with a larger --budget, or the same query to further owners")


def _table(ranking: Ranking) -> list[list[str]]:
    """Return the header and a row per owner, best first, then the training without answers, then the refused."""
    known = [key for key in _SCORES if key in ranking.rows[0].scores]
    with_psi = any(row.psi is not None for row in ranking.rows)
    header = ["rank", "owner", "gain", "95 % over seeds", "95 % over cases", "not distinguishable from"]
    header += [*(_SCORES[key] for key in known), "relative residual", *(["mean psi"] if with_psi else [])]
    header += ["samples", "disclosed so far", "seconds"]
    rows = {row.name: row for row in ranking.rows}
    table = [header]
    placed = {place.name: place for place in ranking.places}
    for name in [*placed, *(name for name in rows if name not in placed)]:
        row, place = rows[name], placed.get(name)
        first = ["–", name, "", "", "", ""]
        if place is not None:
            seeds, cases = place.gain.over_seeds, place.gain.over_cases
            alike = ", ".join(place.alike) or "–"
            first = [place.rank, name, f"{seeds.mean:+.3f}", _ends(seeds), _ends(cases), alike]
        scores = [f"{row.scores[key]:.3f}" for key in known]
        cheap = [_number(row.residual), *([_number(row.psi)] if with_psi else [])]
        shared = ["0", "0"] if row.answer is None else [str(row.answer.contents.samples), str(row.answer.disclosed)]
        table.append([*first, *scores, *cheap, *shared, f"{row.seconds:.1f}"])
    for name in ranking.refused:
        table.append(["refused", name, *[""] * (len(header) - 2)])
    return table


def _picture(ranking: Ranking) -> bytes:
    from matplotlib.figure import Figure

    places = list(reversed(ranking.places))
    figure = Figure(figsize=(7, 1.2 + 0.5 * len(places)), layout="constrained")
    axes = figure.add_subplot()
    for shift, name, colour in ((0.12, "over seeds", "tab:blue"), (-0.12, "over cases", "tab:orange")):
        ends = [place.gain.over_seeds if name == "over seeds" else place.gain.over_cases for place in places]
        means = [end.mean for end in ends]
        reach = [(end.mean - end.low, end.high - end.mean) if math.isfinite(end.low) else (0, 0) for end in ends]
        errors = list(zip(*reach, strict=True))
        rows = [number + shift for number in range(len(places))]
        axes.errorbar(means, rows, xerr=errors, fmt="o", capsize=3, color=colour, label=name)
    axes.axvline(0, color="grey", linewidth=1)
    axes.set_yticks(range(len(places)), [f"{place.name} ({place.rank})" for place in places])
    axes.set_ylim(-0.6, len(places) - 0.4)
    axes.set_xlabel("gain in accuracy on held-out hard cases, with 95 % intervals")
    axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()


def _page(ranking: Ranking, table: Sequence[Sequence[str]], picture: bytes) -> str:
    asked = ranking.asked.manifest
    classes = ", ".join(f"{name} ({count})" for name, count in asked.contents.classes.items())
    seconds = sum(row.seconds for row in ranking.rows)
    samples = sum(row.answer.contents.samples for row in ranking.rows if row.answer)
    choices = [
        f"<li>{_e(row.name)}: {_e(row.answer.choice.selector.rpartition('.')[2])}"
        f"{_e(', ' + row.answer.choice.encoder.name) if row.answer.choice.encoder else ''}</li>"
        for row in ranking.rows
        if row.answer
    ]
    refused = "".join(f"<li>{_e(name)}: {_e(reason)}</li>" for name, reason in ranking.refused.items())
    head = "".join(f"<th>{_e(cell)}</th>" for cell in table[0])
    body = "".join("<tr>" + "".join(f"<td>{_e(cell)}</td>" for cell in row) + "</tr>" for row in table[1:])
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Whose data helps</title><style>{_STYLE}</style></head><body>
<h1>Whose data helps</h1>
<p class="verdict">{_e(verdict(ranking.places))}</p>
<p>{asked.contents.samples} queries of {len(asked.contents.classes)} classes, {_e(classes)}; budget {asked.budget}.
Each answer was added to the training set and the model trained {ranking.seeds} times ({_e(ranking.mode)}), then
scored on {ranking.cases} hard cases that no owner has seen.</p>
<img alt="Gain per owner with intervals" src="data:image/png;base64,{base64.b64encode(picture).decode()}">
<div style="overflow-x:auto"><table><tr>{head}</tr>{body}</table></div>
<p><small>Gain: accuracy on the held-out hard cases minus that without shared samples, with the same seeds. Two owners
are in order only where the 95 % t interval over seeds and the bootstrap interval over cases of their paired difference
both leave out 0; intervals are not corrected for the number of pairs. Relative residual (lower is better) and mean psi
(lower is nearer) need no training: what the answer's gradients leave of the queries', and the distance of its features
from the queries'.</small></p>
<h2>Cost</h2><p>{samples} samples disclosed by the owners, {asked.contents.samples} by the trainer to each of them;
{seconds:.0f} seconds of training.</p>
<h2>How they chose</h2><ul>{"".join(choices)}</ul>
{f"<h2>Refused</h2><ul>{refused}</ul>" if refused else ""}
<p><small>Query {ranking.asked.digest}</small></p>
</body></html>
"""


def _e(text: str) -> str:
    return html.escape(text)


def _ends(interval: Interval) -> str:
    return f"{interval.low:+.3f} to {interval.high:+.3f}" if math.isfinite(interval.low) else "–"


def _number(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.3f}"
