"""Detectors that ask language models, through `lit-detect`: each YAML is read, two processes equal one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import short_search
import torch
import yaml
from austen_pairs import pairs

import lit_detect.detectors
from lit_core import lm
from lit_core.lm.language_model import HuggingFaceLM
from lit_detect.cli import main
from lit_detect.detectors import TrainedDetector
from lit_detect.loading import load_checkpoint
from lit_detect.scoring.masked_language_model import MaskedLM

SETTINGS = """
seed_everything: 0
data:
  class_path: lit_detect.TextDataModule
  init_args:
    root: texts
    sources: [{class_path: lit_detect.formats.LitShiftJSONL, init_args: {path: pairs.jsonl, name: pairs}}]
    train: [pairs]
    batch_size: 10
model: {class_path: lit_detect.DetectorTask}
trainer: {accelerator: cpu, enable_progress_bar: false, enable_model_summary: false}
"""
CONFIGS = Path(__file__).parents[3] / "configs" / "detect" / "detector"


def asks_frozen_models(path):
    """Tell whether a config names a detector that asks language models without training them."""
    text = path.read_text()
    _, _, name = yaml.safe_load(text)["model"]["init_args"]["detector"]["class_path"].rpartition(".")
    is_trained = issubclass(getattr(lit_detect.detectors, name), TrainedDetector)
    return not is_trained and ("smollm2" in text or "MaskedLM" in text)


NAMES = [path.stem for path in sorted(CONFIGS.glob("*.yaml")) if asks_frozen_models(path)]


@pytest.fixture(autouse=True)
def in_folder_with_pairs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LITSHIFT_DATA", str(tmp_path / "data"))
    Path("pairs.jsonl").write_text("".join(json.dumps(record.to_dict()) + "\n" for record in pairs(40)))
    Path("settings.yaml").write_text(SETTINGS)


def last(run):
    return f"runs/detect/{run}/checkpoints/last.ckpt"


@pytest.mark.parametrize("name", NAMES)
def test_each_config_is_fitted_and_comes_back(name, monkeypatch, tiny_gpt2, tiny_bert, capsys):
    """With tiny models in the place of the packaged and published ones."""
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

    def small(layers: int | None = None, dtype: str = "float32") -> HuggingFaceLM:
        return HuggingFaceLM.from_pretrained(tiny_gpt2, layers=None if layers is None else 1)

    def masked(name: str, device: str = "cpu") -> MaskedLM:
        torch.manual_seed(0)
        config = BertConfig.from_pretrained(tiny_bert, num_hidden_layers=1)
        return MaskedLM(BertForMaskedLM(config), AutoTokenizer.from_pretrained(tiny_bert), name)

    monkeypatch.setattr(lm, "smollm2", small)
    monkeypatch.setattr(MaskedLM, "from_pretrained", masked)
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    detector = config["model"]["init_args"]["detector"]
    for part in [detector, *detector["init_args"].get("members", [])]:
        if "language_model" in part.get("init_args", {}):
            part["init_args"]["max_tokens"] = 40
    Path("config.yaml").write_text(yaml.safe_dump(config))
    code = main(["fit", "--config", "settings.yaml", "--config", "config.yaml", "--run", name])
    assert code == 0, capsys.readouterr().err
    judge = load_checkpoint(last(name))
    assert judge.detector.score([record.text for record in pairs(3)]).isfinite().all()


def test_configs_that_ask_frozen_models_are_found():
    assert {"binoculars", "ensemble", "gltr_bert", "lrr"} < set(NAMES) and not {"grover", "fast"} & set(NAMES)


def test_two_processes_fit_the_same(tiny_gpt2):
    Path("config.yaml").write_text(
        f"""
model:
  init_args:
    detector:
      class_path: lit_detect.detectors.GLTRDetector
      init_args:
        language_model: {{class_path: lit_core.lm.HuggingFaceLM.from_pretrained, init_args: {{name: {tiny_gpt2}}}}}
        counts: fractions
        max_tokens: 40
trainer: {{max_epochs: 1}}
"""
    )
    command = ["fit", "--config", "settings.yaml", "--config", "config.yaml", "--run"]
    assert main([*command, "one"]) == 0
    two = [
        sys.executable,
        short_search.__file__,
        *command,
        "two",
        "--trainer.devices",
        "2",
        "--trainer.strategy",
        "ddp",
    ]
    done = subprocess.run(two, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    states = [torch.load(last(run), weights_only=True)["state_dict"] for run in ("one", "two")]
    # a row of a batch may be rounded otherwise in another batch, which no rank of a random model sees
    assert torch.allclose(*(state["detector._extra_state"] for state in states), rtol=1e-6)
    assert not [key for key in states[0] if "language_model" in key]
