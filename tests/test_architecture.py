"""The map in docs/architecture.md and the contracts of layers name every room, and nothing that is none."""

import re
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PACKAGES = sorted(path.parent.name for path in ROOT.glob("lit_*/__init__.py"))
FACES = {"__init__", "__main__"}
#: Folders of data, which hold no modules.
DATA = {"embedded"}


def rooms_of(package):
    """The rooms as the map writes them: ``name/`` for a folder, ``name.py`` for a module of the root."""
    folders = {f"{path.parent.name}/" for path in (ROOT / package).glob("*/__init__.py")}
    return folders | {path.name for path in (ROOT / package).glob("*.py") if path.stem not in FACES}


def mapped_rooms():
    """Rooms by the heading under which the map lists them; those for all packages are under ``every``."""
    rooms, heading = {}, None
    for line in (ROOT / "docs" / "architecture.md").read_text().splitlines():
        if match := re.match(r"### (?:In (every) package|`(\w+)`)", line):
            heading = rooms.setdefault(match[1] or match[2], set())
        elif line.startswith("## "):
            heading = None
        elif heading is not None and (match := re.match(r"\| (`.*?) \|", line)):
            heading |= set(re.findall(r"`(\w+(?:/|\.py))`", match[1]))
    return rooms


def layered_rooms(package):
    with (ROOT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    (contract,) = (one for one in contracts if one["type"] == "layers" and one["containers"] == [package])
    assert contract["exhaustive"] is True  # so that import-linter refuses a room without a layer
    return {room for layer in contract["layers"] for room in re.findall(r"\w+", layer)}


def test_there_are_four_packages():
    assert PACKAGES == ["lit_core", "lit_detect", "lit_moe", "lit_valuation"]


@pytest.mark.parametrize("package", PACKAGES)
def test_the_map_has_a_line_for_each_room(package):
    rooms = mapped_rooms()
    missing = rooms_of(package) - rooms[package]
    if package != "lit_core":  # which is not one of the packages that have a face
        missing -= rooms["every"]
    assert not missing
    assert not rooms[package] - rooms_of(package)


def test_each_room_of_every_package_is_somewhere():
    somewhere = set.union(*(rooms_of(package) for package in PACKAGES))
    assert not mapped_rooms()["every"] - somewhere


@pytest.mark.parametrize("package", [package for package in PACKAGES if package != "lit_core"])
def test_each_room_has_a_layer(package):
    rooms = {room.removesuffix("/").removesuffix(".py") for room in rooms_of(package)}
    assert layered_rooms(package) == rooms
