"""Report of a ranking: a table on the screen and as CSV, a picture, and a self-contained HTML page."""

from __future__ import annotations

import base64
import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lightning_utilities.core.imports import RequirementCache

from lit_core.errors import UserError
from lit_core.files.paths import atomic_write
from lit_core.files.tables import CsvWriter, figure_text, html_text, text_table
from lit_core.screen import say
from lit_core.statistics.interval import Interval
from lit_valuation.exchange.comparison import OwnerRank, verdict
from lit_valuation.exchange.folder import Received
from lit_valuation.exchange.manifest import Answer, Query
from lit_valuation.exchange.mass_choice import GRID, SEEDS, MassCurve, curve_picture, curve_table
from lit_valuation.functional.mass import Weights
from lit_valuation.samples import NAMED, Target
from lit_valuation.training.retrain import Mode

#: Files of a ranking: the table, the picture and the page; and where masses were chosen, a table and a picture of that.
RESULTS = _TABLE, _PICTURE, _REPORT, _CURVE_TABLE, _CURVE_PICTURE = (
    *("ranking.csv", "ranking.png", "report.html"),
    *("mass.csv", "mass.png"),
)
_MATPLOTLIB = RequirementCache("matplotlib>=3.7")
_SCORES = {
    "held_out": "held-out hard cases",
    "queries": "queries",
    "hard_classes": "hard classes (test)",
    "test": "whole test set",
}
#: What a score is, and its unit, by kind of target.
_SCORE: Mapping[Target, tuple[str, str]] = {
    "class": ("accuracy", "from 0 to 1"),
    "labels": ("share of right labels", "from 0 to 1"),
    "values": ("minus the squared error", "in training variances"),
    "tags": ("share of right tags", "from 0 to 1"),
    "text": ("minus the loss per token", "in nats"),
}
_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;width:100%;font-size:.9em}th,td{padding:.3em .6em;border-bottom:1px solid #ddd}
td+td,th+th{text-align:right}th{border-bottom:2px solid #888}img{max-width:100%}.verdict{font-size:1.2em}
small{color:#666}
@media (prefers-color-scheme:dark){
body{background:#14181d;color:#e4e8ec}th,td{border-color:#313a44}small{color:#98a4b0}}"""


@dataclass(frozen=True)
class RankingRow:
    """Scores of one owner, or of the training without shared samples.

    Args:
        name: Name of the owner, or of the training without shared samples.
        answer: Manifest of the answer; None where nothing was shared.
        counted: Number of its samples that were trained with; the others are left out.
        mass: Their share of the training loss, from 0 to 1; None where nothing was shared.
        scores: Score on each set, averaged over samples and seeds.
        residual: Relative residual of the gradients; None where nothing was shared.
        psi: Mean psi of the features; None without an encoder.
        seconds: Duration of all trainings.
    """

    name: str
    answer: Answer | None
    counted: int
    mass: float | None
    scores: Mapping[str, float]
    residual: float | None
    psi: float | None
    seconds: float


@dataclass(frozen=True)
class Ranking:
    """Everything that a report shows.

    Args:
        query: The query.
        owners: The owners' ranks, the best first.
        rows: Scores of each owner, and of the training without shared samples.
        refused: Reasons of refusals, by owner.
        notes: What else there is to know of an answer, by owner.
        seeds: Number of trainings per owner.
        mode: Whether trainings began from scratch or from the checkpoint.
        cases: Number of held-out hard cases.
        mass: Share of the training loss that an answer's samples got; None for that by number.
        weights: Whether they counted equally among themselves, or by the weights of the manifest.
        curves: How the mass of each answer was chosen, by owner; empty where it was not.
        target: Kind of the targets, which names the score.
    """

    query: Received[Query]
    owners: Sequence[OwnerRank]
    rows: Sequence[RankingRow]
    refused: Mapping[str, str]
    notes: Mapping[str, str]
    seeds: int
    mode: Mode
    cases: int
    mass: float | Literal["choose"] | None
    weights: Weights
    curves: Mapping[str, MassCurve]
    target: Target = "class"


def check_plotting() -> None:
    """Refuse to train for a ranking whose picture could not be drawn.

    Raises:
        UserError: If matplotlib is not installed.
    """
    if not _MATPLOTLIB:
        raise UserError('The picture needs `matplotlib`; install it with `pip install "lit-shift[plot]"`.')


def write_report(folder: Path, ranking: Ranking) -> None:
    """Write ranking.csv, ranking.png and report.html, and print the ranking; all columns are in the files."""
    table = _table(ranking)
    text = io.StringIO()
    CsvWriter(text).rows(table)
    atomic_write(folder / _TABLE, text.getvalue())
    picture = _picture(ranking)
    atomic_write(folder / _PICTURE, picture)
    pictures = [("Gain per owner with intervals", picture)]
    for name in (_CURVE_TABLE, _CURVE_PICTURE):
        (folder / name).unlink(missing_ok=True)  # of a ranking of other answers
    if ranking.curves:
        atomic_write(folder / _CURVE_TABLE, curve_table(ranking.curves))
        curves = curve_picture(ranking.curves)
        atomic_write(folder / _CURVE_PICTURE, curves)
        pictures.append(("Validation score by mass", curves))
    atomic_write(folder / _REPORT, _page(ranking, table, pictures))
    say("", *screen_lines(ranking))
    say("", *textwrap.wrap(verdict(ranking.owners), 80))
    say("", f"Report       {folder / _REPORT}")
    say(f"Table        {folder / _TABLE}")
    say("Ask on       lit-valuation query … with a larger --budget, or to more owners")


def screen_lines(ranking: Ranking) -> list[str]:
    """Return the ranking in at most 80 columns: each owner beside the training without shared samples."""
    accuracy = {row.name: f"{row.scores['held_out']:.3f}" for row in ranking.rows}
    rows = [["owner", "rank", "hard cases", "gain", "95 %", "p"]]
    for owner in ranking.owners:
        gain, p = owner.gain.interval, _p(owner.gain.p)
        rows.append([_short(owner.name), owner.rank, accuracy.pop(owner.name), f"{gain.mean:+.3f}", _ends(gain), p])
    rows += [[_short(name), "–", score, "", "", ""] for name, score in accuracy.items()]
    rows += [[_short(name), "refused", "", "", "", ""] for name in ranking.refused]
    score, unit = _SCORE[ranking.target]
    return [
        *text_table(rows),
        "",
        *textwrap.wrap(f"hard cases: {score} on {ranking.cases} hard cases that no owner has seen, {unit}", 80),
        "gain: what an owner's samples add to it, with its interval for new seeds, cases",
        "p: how often chance alone makes such a gain, corrected for all comparisons",
    ]


def _short(name: str) -> str:
    name = name.strip("()")
    return name if len(name) <= 15 else f"{name[:14]}…"


def _table(ranking: Ranking) -> list[list[str]]:
    """Return the header, the owners (best first), the training without answers, and the refused answers."""
    sets = [key for key in _SCORES if key in ranking.rows[0].scores]
    with_psi = any(row.psi is not None for row in ranking.rows)
    header = ["rank", "owner", "gain", "95 %", "p", "not distinguishable from"]
    header += [*(_SCORES[key] for key in sets), "relative residual", *(["mean psi"] if with_psi else [])]
    header += ["samples", "mass", "left out", "disclosed so far", "seconds"]
    rows = {row.name: row for row in ranking.rows}
    table = [header]
    owners = {owner.name: owner for owner in ranking.owners}
    for name in [*owners, *(name for name in rows if name not in owners)]:
        row, owner = rows[name], owners.get(name)
        first = ["–", name, "", "", "", ""]
        if owner is not None:
            gain, alike = owner.gain.interval, ", ".join(owner.alike) or "–"
            first = [owner.rank, name, f"{gain.mean:+.3f}", _ends(gain), _p(owner.gain.p), alike]
        scores = [f"{row.scores[key]:.3f}" for key in sets]
        proxies = [_number(row.residual), *([_number(row.psi)] if with_psi else [])]
        shared = [str(row.counted), _number(row.mass), *("0", "0")]
        if row.answer is not None:
            shared[2:] = [str(row.answer.contents.samples - row.counted), str(row.answer.disclosed)]
        table.append([*first, *scores, *proxies, *shared, f"{row.seconds:.1f}"])
    for name in ranking.refused:
        table.append(["refused", name, *[""] * (len(header) - 2)])
    return table


def _picture(ranking: Ranking) -> bytes:
    from matplotlib.figure import Figure

    owners = list(reversed(ranking.owners))
    figure = Figure(figsize=(7, 1.2 + 0.5 * len(owners)), layout="constrained")
    axes = figure.add_subplot()
    gains = [owner.gain.interval for owner in owners]
    bars = [(gain.mean - gain.low, gain.high - gain.mean) if math.isfinite(gain.low) else (0, 0) for gain in gains]
    errors = list(zip(*bars, strict=True))
    axes.errorbar([gain.mean for gain in gains], range(len(owners)), xerr=errors, fmt="o", capsize=3, color="tab:blue")
    axes.axvline(0, color="grey", linewidth=1)
    axes.set_yticks(range(len(owners)), [figure_text(f"{owner.name} ({owner.rank})") for owner in owners])
    axes.set_ylim(-0.6, len(owners) - 0.4)
    axes.set_xlabel(f"gain in {_SCORE[ranking.target][0]} on held-out hard cases, with 95 % intervals")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()


def _weighing(ranking: Ranking) -> str:
    """Return how the answers' samples counted in training, as a sentence."""
    if ranking.mass == "choose":
        grid = ", ".join("their share by number" if mass is None else f"{mass}" for mass in GRID)
        text = (
            f"The mass of each answer, its share of the training loss, was chosen among {grid} by {SEEDS} trainings "
            "each, with other seeds, by the score on the validation set without the held-out hard cases, where a "
            "query counts for the held-out cases of its class too."
        )
    elif ranking.mass is not None:
        text = f"The samples of an answer have a mass of {ranking.mass}: this share of the training loss."
    else:
        text = "The mass of an answer, its share of the training loss, is that by number."
    return text + (" Within it they count by the weights of its manifest." if ranking.weights == "manifest" else "")


def _page(ranking: Ranking, table: Sequence[Sequence[str]], pictures: Sequence[tuple[str, bytes]]) -> str:
    query = ranking.query.manifest
    classes = html_text(", ".join(f"{name} ({count})" for name, count in query.contents.classes.items()))
    score, unit = _SCORE[ranking.target]
    seconds = sum(row.seconds for row in ranking.rows)
    samples = sum(row.answer.contents.samples for row in ranking.rows if row.answer)
    sent = (
        str(query.contents.samples)
        if query.probe is None
        else f"none, but {len(query.probe.targets)} sums of gradients,"
    )
    choices = [
        f"<li>{html_text(row.name)}: {html_text(row.answer.choice.selector.rpartition('.')[2])}"
        f"{html_text(', ' + row.answer.choice.encoder.name) if row.answer.choice.encoder else ''}</li>"
        for row in ranking.rows
        if row.answer
    ]
    refused, notes = (
        "".join(f"<li>{html_text(name)}: {html_text(reason)}</li>" for name, reason in reasons.items())
        for reasons in (ranking.refused, ranking.notes)
    )
    images = "\n".join(
        f'<img alt="{title}" src="data:image/png;base64,{base64.b64encode(picture).decode()}">'
        for title, picture in pictures
    )
    head = "".join(f"<th>{html_text(cell)}</th>" for cell in table[0])
    body = "".join("<tr>" + "".join(f"<td>{html_text(cell)}</td>" for cell in row) + "</tr>" for row in table[1:])
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Whose data helps</title><style>{_STYLE}</style></head><body>
<h1>Whose data helps</h1>
<p class="verdict">{html_text(verdict(ranking.owners))}</p>
<p>{html_text(query.contents.samples)} queries of {len(query.contents.classes)} {NAMED[ranking.target]}, {classes};
budget {query.budget}. Each answer was added to the training set and the model trained {ranking.seeds} times
({html_text(ranking.mode)}), then scored on {ranking.cases} hard cases that no owner has seen. {_weighing(ranking)}</p>
{images}
<div style="overflow-x:auto"><table><tr>{head}</tr>{body}</table></div>
<p><small>Gain: {score} on the held-out hard cases ({unit}) minus that without shared samples, with the same seeds.
Two owners are ordered only if a test of their paired difference, over seeds and cases together, has a p-value of at
most 0.05 after Holm's correction for the number of comparisons; p is that of the gain. Intervals are not corrected. Two
scores need no training. The relative residual is the part of the queries' gradient that the answer's gradients do not
match; lower is better. Mean psi is the distance of the answer's features from those of the queries; lower is
nearer.</small></p>
<h2>Cost</h2><p>{html_text(samples)} samples disclosed by the owners, {sent} by the trainer to each of them;
{seconds:.0f} seconds of training.</p>
<h2>How they chose</h2><ul>{"".join(choices)}</ul>
{f"<h2>Refused</h2><ul>{refused}</ul>" if refused else ""}
{f"<h2>To be noted</h2><ul>{notes}</ul>" if notes else ""}
<p><small>Query {ranking.query.digest}</small></p>
</body></html>
"""


def _ends(interval: Interval) -> str:
    return f"{interval.low:+.3f} to {interval.high:+.3f}" if math.isfinite(interval.low) else "–"


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _number(value: float | None) -> str:
    return "–" if value is None or math.isnan(value) else f"{value:.3f}"
