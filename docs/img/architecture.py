"""Draw the rooms of the packages: ``python docs/img/architecture.py`` writes ``architecture.png`` beside this file."""

import sys
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
COLOURS = {"lit_moe": "#dbe9f6", "lit_valuation": "#e2f0d9", "lit_detect": "#fbe5d6", "lit_core": "#ededed"}


def layers(package: str) -> list[list[str]]:
    """Read the layers of a package, from the top down, from its contract in ``pyproject.toml``."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    (contract,) = (one for one in contracts if one["type"] == "layers" and one["containers"] == [package])
    return [[room.strip(" ()") for room in layer.replace(":", "|").split("|")] for layer in contract["layers"]]


def core_rooms() -> list[list[str]]:
    """Return the rooms of ``lit_core``, which has no layers, in rows of equal length."""
    rooms = sorted(path.parent.name for path in (ROOT / "lit_core").glob("*/__init__.py"))
    rooms += sorted(path.stem for path in (ROOT / "lit_core").glob("*.py") if path.stem != "__init__")
    half = -(-len(rooms) // 2)
    return [rooms[:half], rooms[half:]]


def draw(path: str) -> None:
    """Draw the three packages side by side on top of ``lit_core``.

    Args:
        path: Image file to be written; its suffix gives the format.
    """
    packages = ("lit_moe", "lit_valuation", "lit_detect")
    columns = {package: layers(package) for package in packages}
    height = max(map(len, columns.values()))
    figure = Figure(figsize=(13, 0.55 * height + 2.2), layout="constrained")
    axes = figure.subplots()
    for column, package in enumerate(packages):
        # Stretched, so that all columns are equally high.
        step = height / len(columns[package])
        for level, rooms in enumerate(reversed(columns[package])):
            _row(axes, rooms, (column * 1.06, level * step), (1, step), COLOURS[package])
        axes.text(column * 1.06 + 0.5, height + 0.1, package, ha="center", va="bottom", weight="bold")
    for level, rooms in enumerate(reversed(core_rooms())):
        _row(axes, rooms, (0, level * 0.8 - 1.9), (3.12, 0.8), COLOURS["lit_core"])
    axes.text(1.56, -2.0, "lit_core", ha="center", va="top", weight="bold")
    axes.annotate("", xy=(-0.06, 0), xytext=(-0.06, height), arrowprops={"arrowstyle": "->", "color": "grey"})
    axes.text(-0.09, height / 2, "imports", rotation=90, ha="right", va="center", color="grey")
    axes.set(xlim=(-0.16, 3.16), ylim=(-2.5, height + 0.7))
    axes.axis("off")
    figure.savefig(path, dpi=120)


def _row(axes: Axes, rooms: list[str], corner: tuple[float, float], size: tuple[float, float], colour: str) -> None:
    """Draw a layer: its rooms side by side, as wide as their names."""
    weights = [len(room) + 3 for room in rooms]
    left = corner[0]
    for room, weight in zip(rooms, weights, strict=True):
        width = size[0] * weight / sum(weights)
        box = FancyBboxPatch(
            (left + 0.01, corner[1] + 0.06),
            width - 0.02,
            size[1] - 0.12,
            boxstyle="round,pad=0,rounding_size=0.03",
            facecolor=colour,
            edgecolor="#888888",
        )
        axes.add_patch(box)
        axes.text(left + width / 2, corner[1] + size[1] / 2, room, ha="center", va="center", fontsize="small")
        left += width


if __name__ == "__main__":
    draw(str(Path(__file__).with_suffix(".png")))
