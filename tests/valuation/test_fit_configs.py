"""Every packaged config of `lit-valuation fit` trains, on the digits."""

from pathlib import Path

import pytest

from lit_valuation.cli import main

CONFIGS = Path(__file__).parents[2] / "configs" / "valuation"
#: What each config of `fit` is combined with: nothing, or a callback.
FIT = [[f"fit/{path.name}"] for path in sorted((CONFIGS / "fit").glob("*.yaml"))]
FIT += [
    ["fit/images.yaml", f"callbacks/{path.name}"]
    for path in sorted((CONFIGS / "callbacks").glob("*.yaml"))
    if "#   lit-valuation fit" in path.read_text()
]
#: Data of the configs whose targets are not classes.
OTHER = {"values": "digits_data.DigitValues", "labels": "digits_data.DigitLabels", "tags": "digits_data.DigitTags"}
SMALL = """
data: {class_path: DATA}
trainer:
  {accelerator: cpu, max_steps: 2, val_check_interval: 1, enable_progress_bar: false, enable_model_summary: false}
"""


@pytest.mark.parametrize("names", FIT, ids=lambda names: Path(names[-1]).stem)
def test_it_trains(names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = OTHER.get(Path(names[0]).stem, "digits_data.DigitsData")
    Path("small.yaml").write_text(SMALL.replace("DATA", data))
    configs = [part for name in names for part in ("--config", f"configs/valuation/{name}")]
    assert main(["fit", *configs, "--config", "small.yaml", "--run", "run"]) == 0
