"""TensorBoard's first page of a run of lit-valuation."""

from pathlib import Path

import yaml
from first_page import event_files, walk
from valuation_cases import FIT, PREPARE

from lit_valuation.cli import main

MATCHING = {"class_path": "lit_valuation.GradientMatching", "init_args": {"budget": 0.5, "every_n_epochs": 1}}
LOGGED = {"logger": None, "log_every_n_steps": 1, "max_steps": 6, "val_check_interval": 1, "callbacks": [MATCHING]}


def test_the_first_page_answers_whether_hard_cases_are_learnt(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("prepare.yaml").write_text(yaml.safe_dump({**PREPARE, "root": str(Path("data").absolute())}))
    assert main(["divide", "--config", "prepare.yaml"]) == 0
    Path("fit.yaml").write_text(yaml.safe_dump({**FIT, "trainer": {**FIT["trainer"], **LOGGED}}))
    assert main(["fit", "--config", "fit.yaml", "--run", "one"]) == 0
    run, last = Path("runs/valuation/one"), "runs/valuation/one/checkpoints/last.ckpt"
    varied = {"trainer/callbacks/GradientMatching/budget": 0.5}
    walk(run, ["accuracy", "training loss"], varied)
    assert main(["test", "--ckpt_path", last]) == 0
    texts = walk(run, ["accuracy", "training loss"], varied)
    assert "accuracy" in texts["answer/test"] and "test/" in texts["once/test"]
    assert len(event_files(run)) == 2
    assert main(["predict", "--ckpt_path", last]) == 0
    assert len(event_files(run)) == 2
