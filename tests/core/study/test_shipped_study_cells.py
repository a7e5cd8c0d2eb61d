"""The shipped cells of studies are taken up by the studies as they stand."""

import tarfile
from pathlib import Path

import pytest
import yaml

from lit_core.study.cells import finished
from lit_core.study.grid import Grid, Size, expand

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("package", "study", "archive"),
    [("detect", "detection_real", "detection_real"), ("valuation", "mycroft", "valuation")],
)
def test_a_study_takes_up_all_shipped_cells(package, study, archive, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = Path("runs", package, f"{study}-small")
    config = yaml.safe_load((ROOT / "configs" / package / "studies" / f"{study}.yaml").read_text())
    grids = {name: Grid(**grid) for name, grid in config["grids"].items()}
    cells = expand(grids, {name: Size(**size) for name, size in config["sizes"].items()}, "small", folder)
    with tarfile.open(ROOT / "docs" / "results" / "cells" / f"{archive}.tar.xz") as opened:
        opened.extractall(tmp_path, filter="data")
    assert [cell.name for cell in cells if finished(cell, folder) is None] == []
    assert {path.parent.name for path in folder.glob("*/result.json")} == {cell.name for cell in cells}
