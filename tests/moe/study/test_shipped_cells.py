"""The shipped cells of the continual pre-training study are taken up by the study as it stands."""

import json
import shutil
import tarfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import yaml

from lit_core.study.cells import finished
from lit_core.study.grid import Grid, Size, expand
from lit_moe.cli import main

ROOT = Path(__file__).parents[3]
CONFIG = ROOT / "configs" / "moe" / "studies" / "continual.yaml"
FOLDER = Path("runs/moe/continual-small")


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shipped")
    with tarfile.open(ROOT / "docs" / "results" / "cells" / "moe.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture(autouse=True)
def unpacked(shipped, monkeypatch):
    monkeypatch.chdir(shipped)


@cache
def cells(function=None, seeds=None):
    """The cells of the small study, of all its seeds or of some."""
    config = yaml.safe_load(CONFIG.read_text())
    grids = {name: Grid(**grid) for name, grid in config["grids"].items()}
    if function is not None:
        grids = {name: replace(grid, function=function) for name, grid in grids.items()}
    size = config["sizes"]["small"] | ({} if seeds is None else {"seeds": list(seeds)})
    return expand(grids, {"small": Size(**size)}, "small", FOLDER)


def test_the_study_takes_up_all_shipped_cells(capsys):
    assert [cell.name for cell in cells() if finished(cell, FOLDER) is None] == []
    results = {path: path.read_bytes() for path in FOLDER.glob("*/result.json")}
    assert len(results) == 99
    assert main(["study", "--config", str(CONFIG), "--size", "small", "--figures", "null"]) == 0
    assert "99 of 99 cells are finished." in capsys.readouterr().out
    assert {path: path.read_bytes() for path in FOLDER.glob("*/result.json")} == results
    shown = (ROOT / "docs" / "results" / "moe.md").read_text()
    tables = [line for line in (FOLDER / "report.md").read_text().splitlines() if line.startswith("|")]
    assert tables == [line for line in shown.splitlines() if line.startswith("|")]


@pytest.mark.parametrize("function", ["lit_moe.experiment.experiment", "lit_moe.study.cell.experiment"])
def test_cells_are_known_under_each_name_of_their_function(function):
    known = cells(function, seeds=(0,))
    assert len(known) > 30 and [cell.name for cell in known if finished(cell, FOLDER) is None] == []


def test_cells_of_another_function_or_of_other_values_are_not_taken_up(shipped, tmp_path, monkeypatch):
    shutil.copytree(shipped / FOLDER, tmp_path / FOLDER)
    monkeypatch.chdir(tmp_path)
    first, second = sorted(FOLDER.glob("*/cell.json"))[:2]
    config = json.loads(first.read_bytes())
    first.write_text(json.dumps(config | {"values": config["values"] | {"steps": 201}}))
    second.write_text(second.read_text().replace("lit_moe.experiment.experiment", "lit_moe.study.shift.around_shift"))
    left = [cell.name for cell in cells() if finished(cell, FOLDER) is None]
    assert sorted(left) == [first.parent.name, second.parent.name]
