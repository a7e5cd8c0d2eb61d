"""Names of classes, columns and owners, whatever is in them, through the verbs that print and write them."""

import csv
import json
from pathlib import Path

import pytest
from hostile_names import NAME, runner
from sklearn.datasets import load_breast_cancer

from lit_valuation.cli import main as valuation

FIT = """
seed_everything: 0
data: {class_path: OwnersDataModule, init_args: {root: data, batch_size: 32}}
model:
  class_path: ClassifierTask
  init_args: {network: {class_path: lit_valuation.nn.MLP, init_args: {hidden: [8]}}}
trainer:
  max_steps: 20
  limit_val_batches: 0
  accelerator: cpu
  devices: 1
  enable_progress_bar: false
  enable_model_summary: false
"""


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    return runner(tmp_path, monkeypatch, capfd)


def test_classes_and_columns(run, tmp_path):
    data = load_breast_cancer()
    with (tmp_path / "given.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow([*(f"{NAME} {column}" for column in range(data.data.shape[1])), "class"])
        table.writerows([*row, ("benign", NAME)[label]] for row, label in zip(data.data, data.target, strict=True))
    (tmp_path / "fit.yaml").write_text(FIT)
    source = {"class_path": "Table", "init_args": {"name": "t", "path": "given.csv", "label": "class"}}
    division = {"train": 60, "val": 200, "test": 60, "evaluation_useful": 0.0, "hard": [], "owner_samples": 30}
    division["owners"] = {"o": {"useful": 0.0}}
    run(valuation, "divide", "--root", "data", "--source", json.dumps(source), "--division", json.dumps(division))
    run(valuation, "divide", "--root", "data", "--verify", "true")
    run(valuation, "fit", "--config", "fit.yaml", "--run", "a b")
    model = ["--ckpt_path", "runs/valuation/a b/checkpoints/last.ckpt"]
    run(valuation, "test", *model)
    run(valuation, "show", "runs/valuation/a b")
    table = {"class_path": "PredictionTable", "init_args": {"path": "predicted.csv"}}
    run(valuation, "predict", *model, "--trainer.callbacks+", json.dumps(table))
    assert next(csv.reader(Path("predicted.csv").open(newline="")))[2:] in [
        ["benign", f"'{NAME}"],
        [f"'{NAME}", "benign"],
    ]
    ask = ["query", *model, "--data", "data/trainer", "--to", "[alice]", "--output", "hard query", "--per_class", "3"]
    run(valuation, *ask, "--dry_run", "true")
    run(valuation, *ask)
    answer = [
        "select",
        "--query",
        "hard query",
        "--data",
        "data/owners/o",
        "--to",
        "t",
        "--limit",
        "9",
        "--output",
        "it's",
    ]
    run(valuation, *answer, "--selector", "RandomSelector", "--budget", "4", "--dry_run", "true")
    run(valuation, *answer, "--selector", "RandomSelector", "--budget", "4")
    owners = {"=a<script>$\\frac$": "it's", "b": "no\x1b[2J\nsuch folder"}
    rank = ["rank", "--query", "hard query", "--answers", json.dumps(owners), *model, "--data", "data/trainer"]
    run(valuation, *rank, "--seeds", "2", "--output", "ranking", code=3)
    run(valuation, *rank, "--seeds", "2", "--output", "ranking", "--expect_digests", json.dumps({NAME: "0"}), code=2)
