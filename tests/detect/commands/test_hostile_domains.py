"""Names of domains and detectors, whatever is in them, through the verbs that print and write them."""

import json

import pytest
from austen_pairs import pairs
from hostile_names import NAME, runner

from lit_detect.cli import main as detect


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    return runner(tmp_path, monkeypatch, capfd)


def test_domains_and_detectors(run, tmp_path):
    for name, domain in (("a", NAME), ("b", "books")):
        lines = (json.dumps(record.to_dict() | {"domain": domain}) for record in pairs(24))
        (tmp_path / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines))
    texts = [{"class_path": "LitShiftJSONL", "init_args": {"path": f"{name}.jsonl", "name": name}} for name in "ab"]
    run(detect, "prepare", "--root", "texts", "--sources", json.dumps(texts))
    model = {"class_path": "EncoderDetector", "init_args": {"model": "scratch-1x32"}}
    fit = ["fit", "--model", "DetectorTask", "--model.detector", json.dumps(model), "--data", "TextDataModule"]
    fit += [
        "--data.root",
        "texts",
        "--data.train",
        "[a,b]",
        "--trainer.max_epochs",
        "1",
        "--trainer.accelerator",
        "cpu",
    ]
    run(detect, *fit, "--trainer.enable_progress_bar", "false", "--run", "one")
    model = ["--ckpt_path", "runs/detect/one/checkpoints/last.ckpt"]
    run(detect, "calibrate", *model, "--human", "a.jsonl", "--by", "domain", "--fpr", "0.2", "--output", "c.json")
    detectors = json.dumps({NAME: model[1]})
    run(detect, "report", "--detectors", detectors, "--texts", '["a.jsonl","b.jsonl"]', "--output", "report")
