"""TensorBoard's first page of a run of lit-detect."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from austen_pairs import pairs
from detect_cases import FIT, PAIRS, PREPARE
from first_page import event_files, walk

from lit_detect.cli import main

CHARTS = ["AUROC", "machine texts that are found", "human texts that are left alone", "training loss"]
ATTACKS = {"class_path": "RobustnessMonitor", "init_args": {"attacks": [{"class_path": "UpperLower"}], "documents": 3}}


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    splits = ["train", "val", "test"]
    records = [replace(one, split=splits[number // 2 % 3]) for number, one in enumerate(pairs(24))]
    Path("pairs.jsonl").write_text("".join(json.dumps(one.to_dict()) + "\n" for one in records))
    Path("prepare.yaml").write_text(
        yaml.safe_dump({**PREPARE, "root": str(Path("prepared").absolute()), "sources": [PAIRS]})
    )
    assert main(["prepare", "--config", "prepare.yaml"]) == 0


@pytest.mark.parametrize("every", [1, 4], ids=["several validations", "one validation"])
def test_the_first_page_answers_whether_texts_are_told_apart(every, place):
    trainer = {"max_steps": 4, "max_epochs": -1, "limit_val_batches": 1.0, "check_val_every_n_epoch": every}
    trainer |= {"logger": None, "log_every_n_steps": 1, "callbacks": [ATTACKS]}
    Path("fit.yaml").write_text(yaml.safe_dump({**FIT, "trainer": {**FIT["trainer"], **trainer}}))
    assert main(["fit", "--config", "fit.yaml", "--run", "one"]) == 0
    run, last = Path("runs/detect/one"), "runs/detect/one/checkpoints/last.ckpt"
    texts = walk(run, CHARTS, {"model/detector/model": "scratch-1x32"})
    assert ("val/pairs/auroc" in texts.get("once/val", "")) == (every == 4)
    assert main(["test", "--ckpt_path", last]) == 0
    assert "called machine" in walk(run, CHARTS, {})["answer/test"]
    assert len(event_files(run)) == 2
    assert main(["predict", "--ckpt_path", last, "--data.predict", "pairs.jsonl"]) == 0
    assert len(event_files(run)) == 2
