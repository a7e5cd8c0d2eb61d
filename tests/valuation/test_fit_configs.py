"""Every packaged config of `lit-valuation fit` trains, on the digits."""

from pathlib import Path

import pytest

from lit_valuation.cli import main

FIT = sorted((Path(__file__).parents[2] / "configs" / "valuation" / "fit").glob("*.yaml"))
SMALL = """
data: {class_path: digits_data.DigitsData}
trainer:
  {accelerator: cpu, max_steps: 2, val_check_interval: 1, enable_progress_bar: false, enable_model_summary: false}
"""


@pytest.mark.parametrize("path", FIT, ids=lambda path: path.stem)
def test_it_trains(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(SMALL)
    names = ["images", "gradient_matching"] if path.stem == "gradient_matching" else [path.stem]
    configs = [part for name in names for part in ("--config", f"configs/valuation/fit/{name}.yaml")]
    assert main(["fit", *configs, "--config", "small.yaml", "--run", "run"]) == 0
