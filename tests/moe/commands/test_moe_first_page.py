"""TensorBoard's first page of a run of lit-moe."""

from pathlib import Path

import yaml
from first_page import event_files, walk
from moe_cases import begin
from test_moe_kills import FIT

from lit_moe.cli import main

CALLBACKS = [
    *FIT["trainer"]["callbacks"],
    {"class_path": "lit_moe.RouterBalance"},
    {"class_path": "lit_moe.Forgetting", "init_args": {"old": ["others"], "new": ["texts"]}},
]


def test_the_first_page_answers_whether_it_forgets_and_learns(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    begin()
    Path("fit.yaml").write_text(yaml.safe_dump({**FIT, "trainer": {**FIT["trainer"], "callbacks": CALLBACKS}}))
    assert main(["fit", "--config", "fit.yaml", "--run", "one"]) == 0
    run = Path("runs/moe/one")
    varied = {"trainer/callbacks/ReplayMixing/fraction": 0.3, "model/optimizer/lr": 0.01, "model/decoder/d_model": 8}
    walk(run, ["bits per byte", "training loss"], varied)
    assert main(["test", "--ckpt_path", f"{run}/checkpoints/last.ckpt"]) == 0
    texts = walk(run, ["bits per byte", "training loss"], varied)
    assert "Did it forget?" in texts["answer/test"] and "test/texts/loss" in texts["once/test"]
    files = event_files(run)
    assert len(files) == 2
    assert main(["predict", "--ckpt_path", f"{run}/checkpoints/last.ckpt"]) == 2
    assert event_files(run) == files
