"""The shipped cells of the study of Mycroft are taken up by the study as it stands."""

import tarfile
from pathlib import Path

import pytest
import yaml

from lit_core.study.cells import finished
from lit_core.study.grid import Grid, Size, expand

ROOT = Path(__file__).parents[3]
FOLDER = Path("runs/valuation/mycroft-small")


@pytest.fixture(scope="module")
def cells():
    config = yaml.safe_load((ROOT / "configs" / "valuation" / "studies" / "mycroft.yaml").read_text())
    grids = {name: Grid(**grid) for name, grid in config["grids"].items()}
    return expand(grids, {name: Size(**size) for name, size in config["sizes"].items()}, "small", FOLDER)


def test_the_study_takes_up_all_shipped_cells(cells, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with tarfile.open(ROOT / "docs" / "results" / "cells" / "valuation.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    assert [cell.name for cell in cells if finished(cell, FOLDER) is None] == []
    assert {path.parent.name for path in FOLDER.glob("*/result.json")} == {cell.name for cell in cells}
