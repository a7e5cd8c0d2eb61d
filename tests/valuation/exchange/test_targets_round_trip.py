"""Prepare, fit, query, select and rank by the command line where targets are numbers or labels."""

import csv
import json
import re

import pytest
from metric_keys import documented, logged
from sklearn.datasets import load_diabetes

from lit_valuation.cli import main

FIT = """
seed_everything: 0
data: {class_path: OwnersDataModule, init_args: {root: ./trainer, batch_size: 32}}
model:
  class_path: TASK
  init_args: {network: {class_path: lit_valuation.nn.MLP, init_args: {hidden: [16]}}}
trainer:
  {max_steps: 40, log_every_n_steps: 20, accelerator: cpu, devices: 1, enable_progress_bar: false}
"""
KINDS = {"values": ("RegressionTask", ["progression"]), "labels": ("MultiLabelTask", ["high", "heavy"])}


def write_tables():
    """Diabetes patients: their progression, and whether it and their body mass index are above the median."""
    data = load_diabetes()
    x = data.data / data.data.std(0)
    extra = [x[:, 2] > 0.1, data.target > 140]
    for party, rows in (("trainer", range(150)), ("alice", range(150, 240)), ("bob", range(240, 330))):
        with open(f"{party}.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([*data.feature_names, "progression", "high", "heavy"])
            for row in rows:
                labels = [int(extra[1][row]), int(extra[0][row])]
                writer.writerow([*x[row].tolist(), data.target[row], *labels])
    return ",".join(data.feature_names)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_answers_of_that_kind_are_ranked(kind, tmp_path, monkeypatch, capsys):
    def run(*args, code=0):
        assert main([*map(str, args)]) == code
        return capsys.readouterr().out

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LITSHIFT_DATA", str(tmp_path / "data"))
    task, names = KINDS[kind]
    inputs = write_tables()
    for party in ("trainer", "alice", "bob"):
        given = ["--source", "Table", "--source.path", f"{party}.csv", "--source.columns", f"[{inputs}]"]
        run("prepare", "--root", f"./{party}", *given, f"--source.{kind}", json.dumps(names), "--val_fraction", 0.4)
    (tmp_path / "fit.yaml").write_text(FIT.replace("TASK", task))
    run("fit", "--config", "fit.yaml", "--run", "m")
    model = ["--ckpt_path", "runs/valuation/m/checkpoints/last.ckpt"]
    run("test", *model)
    keys = {re.sub(r"^(val|test)/\w+/", r"\1/{source}/", key) for key in logged("runs/valuation/m/metrics.csv")}
    assert {key.replace("progression", "{column}") for key in keys} == documented(task, "UnmovedWeights")
    run("predict", *model)
    with open("runs/valuation/m/predictions.csv") as file:
        header = next(csv.reader(file))
    assert header == ["index", *(["labels"] if kind == "labels" else []), *names]

    ask = ["query", *model, "--data", "./trainer", "--to", "[alice,bob]", "--worst", 0.4, "--new_party", "true"]
    run(*ask, "--output", "query", "--per_class", 6, "--budget", 10, "--gradients", "trainer")
    contents = json.loads((tmp_path / "query/manifest.json").read_bytes())["contents"]
    assert contents["target"] == kind and contents["count"] == 6 and set(contents["classes"]) == set(names)
    for party in ("alice", "bob"):
        answer = ["select", "--query", "query", "--data", f"./{party}", "--to", "trainer", "--new_party", "true"]
        run(*answer, "--limit", 10, "--selector", "GradientMatchingSelector", "--output", f"from_{party}")
    shapley = [*answer, "--limit", 10, "--selector", "KNNShapleySelector", "--encoder", "Identity", "--dry_run", "true"]
    assert "Nothing was sent" in run(*shapley, "--output", "shapley")
    answers = json.dumps({"alice": "from_alice", "bob": "from_bob"})
    said = run("rank", "--query", "query", "--answers", answers, *model, "--data", "./trainer", "--output", "ranking")
    score = "minus the squared error" if kind == "values" else "share of right labels"
    assert f"hard cases: {score} on 18 hard cases" in said
    with open("ranking/ranking.csv") as file:
        rows = {row["owner"]: row for row in csv.DictReader(file)}
    scores = [float(row["held-out hard cases"]) for row in rows.values()]
    assert all(score < 0 for score in scores) if kind == "values" else all(0 <= score <= 1 for score in scores)
    assert 0 < float(rows["alice"]["relative residual"]) < 1

    other = "labels" if kind == "values" else "values"
    given = ["--source", "Table", "--source.path", "bob.csv", "--source.columns", f"[{inputs}]"]
    run("prepare", "--root", "./wrong", *given, f"--source.{other}", json.dumps(KINDS[other][1]))
    wrong = [
        "select",
        "--query",
        "query",
        "--data",
        "./wrong",
        "--to",
        "trainer",
        "--new_party",
        "true",
        "--limit",
        "9",
    ]
    assert main([*wrong, "--selector", "RandomSelector", "--output", "x"]) == 2
    assert f"target is {kind}" in capsys.readouterr().err
