"""The page of runs as HTML."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_utilities.core.imports import RequirementCache

from lit_core.board.charts import COLOURS, DASHES, Line, draw
from lit_core.board.reports import report_parts
from lit_core.board.runs import Run, facts_of
from lit_core.cli.record_text import config_rows, record_rows
from lit_core.files.logged import ANSWERS, ONCE
from lit_core.named_parts import named_parts
from lit_core.pages.rendering import render
from lit_core.screen import say

#: Width in pixels below which a picture is shown larger than it is.
_SMALL = 200
_MATPLOTLIB = RequirementCache("matplotlib")


def html(runs: Sequence[Run], reports: Sequence[Path]) -> str:
    """Return a page on which all that comes from others is escaped.

    Args:
        runs: Runs, which are shown side by side.
        reports: Folders of reports, which follow.
    """
    texts = _by_tag(runs, "texts")
    names = [*(run.name for run in runs), *(folder.resolve().name for folder in reports)]
    records = zip(names, [*(run.facts for run in runs), *map(facts_of, reports)], strict=True)
    return render(
        "lit_core.board",
        "page.html",
        title=names[0] if len(names) == 1 else f"{len(runs)} runs" if runs else f"{len(reports)} reports",
        names=[run.name for run in runs],
        scores=_scores(runs) if runs else [],
        varied=_varied(runs) if len(runs) > 1 else [],
        charts=_charts(runs),
        pictures=[
            (name, tag, base64.b64encode(image).decode(), int.from_bytes(image[16:20], "big") < _SMALL)
            for name, tag, image in _by_tag(runs, "pictures")
        ],
        answers=[one for one in texts if one[1].startswith(ANSWERS)],
        once=[one for one in texts if one[1].startswith(ONCE)],
        texts=[one for one in texts if not one[1].startswith((ANSWERS, ONCE))],
        reports=[report_parts(folder) for folder in reports],
        records=[(name, record_rows(facts), config_rows(facts)) for name, facts in records if facts],
    )


def _by_tag(runs: Sequence[Run], kind: str) -> list[tuple[str, str, Any]]:
    """Return the pictures or texts of all runs with their tags, those of one tag beside each other, equal ones once."""
    owners: dict[tuple[str, Any], list[str]] = {}
    for run in runs:
        for tag, one in getattr(run, kind).items():
            owners.setdefault((tag, one), []).append(run.name)
    return [(", ".join(names), *shown) for shown, names in sorted(owners.items(), key=lambda item: item[0][0])]


def _scores(runs: Sequence[Run]) -> list[list[str]]:
    """Return a table of the metrics that count: over the training of one run, or at the end of each of several."""
    keys = dict.fromkeys(key for run in runs for key in run.answers)
    tests = {key: f"test/{key.removeprefix('val/')}" for key in keys if key.startswith("val/")}
    if len(runs) > 1:
        last = [{key: _number(pairs[-1][1]) for key, pairs in run.logged.items()} for run in runs]
        shown = dict.fromkeys(one for key in keys for one in (key, tests.get(key, key)))
        rows = [[key, *(values.get(key, "–") for values in last)] for key in shown]
        return [["last value", *(run.name for run in runs)], *(row for row in rows if {*row[1:]} != {"–"})]
    (run,) = runs
    is_tested = any(test in run.logged for test in tests.values())
    rows = [["", "first", "last", "smallest", "largest", *(["test"] if is_tested else [])]]
    for key in keys:
        values = [value for _, value in run.logged[key]]
        known = [value for value in values if math.isfinite(value)] or [math.nan]
        test = run.logged.get(tests.get(key, ""), ())
        cells = [values[0], values[-1], min(known), max(known), *(value for _, value in test[-1:])]
        rows.append([key, *map(_number, cells), *([""] if is_tested and not test else [])])
    return rows


def _varied(runs: Sequence[Run]) -> list[list[str]]:
    """Return a table of the keys of the config whose values are not the same in all runs."""
    parts = ("config", "resolved")
    facts = [{part: named_parts(run.facts.get(part, {})) for part in parts} for run in runs]
    configs = [{key: value for key, value in config_rows(one) if value != "null"} for one in facts]
    keys = dict.fromkeys(key for config in configs for key in config)
    rows = [[key.replace(".init_args", ""), *(config.get(key, "–") for config in configs)] for key in keys]
    return [["", *(run.name for run in runs)], *(row for row in rows if len({*row[1:]}) > 1)]


def _charts(runs: Sequence[Run]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return the charts by category."""
    if not _MATPLOTLIB:
        say('Charts are left out: matplotlib is missing; pip install "lit-shift[plot]".')
        return []
    layout: dict[str, dict[str, list[str]]] = {}
    for run in runs:
        for category, charts in run.layout.items():
            for title, patterns in charts.items():
                layout.setdefault(category, {}).setdefault(title, []).extend(patterns)
    drawn = {
        category: [chart for title, patterns in charts.items() if (chart := _chart(title, patterns, runs))]
        for category, charts in layout.items()
    }
    return [(category, charts) for category, charts in drawn.items() if charts]


def _chart(title: str, patterns: Sequence[str], runs: Sequence[Run]) -> dict[str, Any]:
    """Return a chart: of one run with a colour per key, of several with a colour per run and dashes per key."""
    from markupsafe import Markup

    keys = list(dict.fromkeys(key for run in runs for key in run.keys(patterns)))
    several = len(runs) > 1
    if several and len(keys) > len(DASHES):  # of layers, of which the mean tells enough here
        keys = [key for key in keys if "/layer_" not in key][: len(DASHES)]
    lines = []
    for number, run in enumerate(runs):
        for index, key in enumerate(keys):
            points = [(step, value) for step, value in run.logged.get(key, ()) if math.isfinite(value)]
            if len(points) > 1:
                lines.append(Line(points, *((number, index) if several else (index, index // COLOURS))))
    if not lines:
        return {}
    names = list(enumerate(_short(keys)))
    return {
        "title": title,
        "svg": Markup(draw(lines)),
        "legend": [] if several else [(name, index % COLOURS, index // COLOURS % len(DASHES)) for index, name in names],
        "dashes": [(name, index) for index, name in names] if several and len(names) > 1 else [],
    }


def _short(keys: Sequence[str]) -> list[str]:
    """Return keys without the parts that all of them share."""
    parts = [key.split("/") for key in keys]
    if len(parts) < 2:
        return list(keys)
    for end in (0, -1):
        while all(len(part) > 1 and part[end] == parts[0][end] for part in parts):
            for part in parts:
                part.pop(end)
    return ["/".join(part) for part in parts]


def _number(value: float) -> str:
    return f"{value:.4g}"
