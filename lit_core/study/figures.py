"""The figures of a study: curves of means over seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_utilities.core.imports import RequirementCache

from lit_core.files.paths import atomic_path
from lit_core.files.tables import figure_text
from lit_core.screen import say
from lit_core.study.rows import ResultRow, means, slug

_MATPLOTLIB = RequirementCache("matplotlib")


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


def draw(figures: Mapping[str, Figure], rows: Sequence[ResultRow], folder: Path) -> dict[str, Path]:
    """Draw the figures as PNG files.

    Returns:
        Their paths by heading; none, with a word about it, where matplotlib or what is to be drawn is missing.
    """
    if not figures or not _MATPLOTLIB:
        if figures:
            say('Figures are left out: matplotlib is missing; pip install "lit-shift[plot]".')
        return {}
    paths = {}
    for heading, figure in figures.items():
        if not means(rows, [figure.by, figure.x], figure.metrics, figure.where):
            say(f"The figure {heading!r} is left out: no results have {figure.by} and {figure.x}.")
            continue
        path = folder / f"{slug(heading)}.png"
        with atomic_path(path) as temporary:
            _plot(figure, rows).savefig(temporary, format="png", dpi=110)
        paths[heading] = path
    return paths


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
            axes.plot([x for x, _ in line], [i.mean for _, i in line], marker=".", label=figure_text(curve), **style)
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
        axes.set(title=figure_text(metric), xlabel=figure_text(figure.x))
        axes.grid(alpha=0.3)
    for axes in panels[len(figure.metrics) :]:
        axes.remove()
    handles, names = panels[0].get_legend_handles_labels()
    canvas.legend(handles, names, title=figure_text(figure.by), loc="outside right upper", frameon=False)
    return canvas
