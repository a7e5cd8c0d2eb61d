"""Each detector's config fits the detector, and names it in its comment as it is run."""

import inspect
from pathlib import Path

import pytest
import yaml

import lit_detect.detectors
from lit_detect.cli import main
from lit_detect.detectors import Detector

ROOT = Path(__file__).parents[3]
CONFIGS = sorted((ROOT / "configs" / "detect" / "detector").glob("*.yaml"))


def test_each_exported_detector_has_a_config():
    named = {yaml.safe_load(path.read_text())["model"]["init_args"]["detector"]["class_path"] for path in CONFIGS}
    exported = [getattr(lit_detect.detectors, name) for name in lit_detect.detectors.__all__]
    kinds = [part for part in exported if isinstance(part, type) and issubclass(part, Detector)]
    final = {kind.__name__ for kind in kinds if not inspect.isabstract(kind)}
    assert {name.split(".")[-1] for name in named} == final


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
