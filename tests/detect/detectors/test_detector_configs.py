"""Each detector's config fits the detector, and names it in its comment as it is run."""

from pathlib import Path

import pytest
import yaml

from lit_detect.cli import main

ROOT = Path(__file__).parents[3]
CONFIGS = sorted((ROOT / "configs" / "detect" / "detector").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_is_understood(path, capsys):
    texts = ROOT / "configs" / "detect" / "fit" / "texts.yaml"
    code = main(["fit", "--config", str(texts), "--config", str(path), "--print_config"])
    out = capsys.readouterr()
    assert code == 0, out.err
    wanted = yaml.safe_load(path.read_text())["model"]["init_args"]["detector"]
    found = yaml.safe_load(out.out)["model"]["init_args"]["detector"]
    assert found["class_path"].split(".")[-1] == wanted["class_path"].split(".")[-1]
    assert wanted.get("init_args", {}).keys() <= found["init_args"].keys()
    assert f"configs/detect/detector/{path.name}" in path.read_text()
