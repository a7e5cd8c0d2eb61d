"""Charts as SVG that takes its colours from the page, so that they are legible in light and dark."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

#: Colours of the page, from ``--line-0`` on.
COLOURS = 8
DASHES = ("-", "--", ":", "-.")
#: Colours that stand for those of the page until the chart is drawn.
_TEXT, _GRID, _LINE = "#0d0e01", "#0d0e02", "#0d0f{:02x}"
_STAND_INS = {_TEXT: "currentColor", _GRID: "var(--grid)"} | {
    _LINE.format(index): f"var(--line-{index})" for index in range(COLOURS)
}
#: Number of points from which on a curve has no markers.
_MANY = 30


@dataclass(frozen=True)
class Line:
    """A curve.

    Args:
        points: Pairs of x and y.
        colour: Number of its colour.
        dash: Number of its dashes.
    """

    points: Sequence[tuple[float, float]]
    colour: int = 0
    dash: int = 0


def draw(lines: Sequence[Line]) -> str:
    """Return the SVG element of a chart without labels, which the page writes around it.

    Args:
        lines: The curves, over the optimizer step.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    style = {"svg.fonttype": "none", "svg.hashsalt": "board", "font.family": "sans-serif", "font.size": 9}
    colours = dict.fromkeys(("text.color", "xtick.color", "ytick.color", "axes.labelcolor"), _TEXT)
    with rc_context({**style, **colours, "axes.edgecolor": _GRID, "grid.color": _GRID}):
        figure = Figure(figsize=(5.2, 2.7), layout="constrained")
        axes = figure.subplots()
        for line in lines:
            colour = _LINE.format(line.colour % COLOURS)
            marker = "." if len(line.points) < _MANY else ""
            x, y = zip(*line.points, strict=True)
            axes.plot(x, y, color=colour, linestyle=DASHES[line.dash % len(DASHES)], marker=marker, linewidth=1.4)
        axes.grid(linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(length=0)
        axes.locator_params(axis="x", integer=True, nbins=6)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Type")))
    return _inline(buffer.getvalue())


def _inline(svg: str) -> str:
    """Return the element alone, without a size, with the colours of the page, and with no name given twice."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', r'<svg \1 role="presentation">', svg, count=1)
    svg = re.sub(r' id="[a-z]+[\w.]*_\d+"', "", svg)
    for stand_in, colour in _STAND_INS.items():
        svg = svg.replace(stand_in, colour)
    return " ".join(svg.split())
