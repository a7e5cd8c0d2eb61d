"""Checkpoints, runs and configs of before the move work today, with the numbers of then.

See fixtures/before_the_move/README.md.
"""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

import lit_detect.cli
import lit_moe.cli
import lit_valuation.cli
from lit_core.lightning.checkpoint import load_checkpoint_file
from lit_core.moved_names import current_path
from lit_detect import DetectorTask
from lit_moe import MoELanguageModel
from lit_valuation import ClassifierTask

FORMER = Path(__file__).parent / "fixtures" / "before_the_move"
MAINS = {"moe": lit_moe.cli.main, "valuation": lit_valuation.cli.main, "detect": lit_detect.cli.main}
CONFIGS = sorted(path.relative_to(FORMER / "configs").as_posix() for path in FORMER.glob("configs/**/*.yaml"))
RUNS = {"moe/first": MoELanguageModel, "valuation/first": ClassifierTask, "detect/ensemble": DetectorTask}
RUNS |= {"detect/member": DetectorTask}
#: Other processors round differently.
NEAR = {"rel": 1e-3, "abs": 1e-4}
#: Keys that are logged since then.
SINCE = {"train/unmoved_weights"}


@pytest.fixture
def former(tmp_path, monkeypatch):
    """The working folder of then, with its runs."""
    shutil.copytree(FORMER, tmp_path, dirs_exist_ok=True)
    shutil.copytree(FORMER / "kept", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LITSHIFT_DATA", str(tmp_path / "data"))


def last(run):
    return f"runs/{run}/checkpoints/last.ckpt"


def logged(path):
    """The rows of a table of metrics, without what depends on the clock."""
    with open(path, newline="") as file:
        rows = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
    return [{key: value for key, value in row.items() if not key.endswith("_per_second")} for row in rows]


def former_names(tree):
    """The former import paths among plain values."""
    if isinstance(tree, dict | list):
        inner = tree.values() if isinstance(tree, dict) else tree
        return [name for value in inner for name in former_names(value)]
    return [tree] if isinstance(tree, str) and current_path(tree) != tree else []


def check_same(found, expected):
    found, expected = logged(found), logged(FORMER / "expected" / expected)
    found = [{key: value for key, value in row.items() if key not in SINCE} for row in found]
    assert [row.keys() for row in found] == [row.keys() for row in expected]
    for row, other in zip(found, expected, strict=True):
        assert row == pytest.approx(other, **NEAR)


@pytest.mark.parametrize("package", ["moe", "valuation"])
def test_a_former_run_is_tested_resumed_and_branched_from_as_then(package, former, capsys):
    def run(*args):
        assert MAINS[package](list(args)) == 0, capsys.readouterr().err

    run({"valuation": "divide"}.get(package, "prepare"), "--config", f"prepare.{package}.yaml")
    run("test", "--ckpt_path", last(f"{package}/first"))
    run("fit", "--ckpt_path", last(f"{package}/first"), "--trainer.max_steps", "12")
    check_same(f"runs/{package}/first/metrics.csv", f"{package}.csv")
    branch = ["--branch_from", f"kept/{package}/first/checkpoints/last.ckpt", "--run", "branch"]
    run("fit", "--config", f"{package}.yaml", *branch, "--trainer.max_steps", "2")
    check_same(f"runs/{package}/branch/metrics.csv", f"{package}.branch.csv")
    for name in ("first", "branch"):  # what is written today names what is there today
        assert not former_names(yaml.safe_load(Path(f"runs/{package}/{name}/config.yaml").read_text()))
        assert not former_names(torch.load(last(f"{package}/{name}"), weights_only=True)["config"])


def test_a_former_ensemble_with_a_trained_member_scores_as_then(former, capsys):
    assert lit_detect.cli.main(["test", "--ckpt_path", last("detect/ensemble")]) == 0, capsys.readouterr().err
    args = ["predict", "--ckpt_path", last("detect/ensemble"), "--data.predict", "pairs.jsonl"]
    assert lit_detect.cli.main(args) == 0, capsys.readouterr().err
    texts = [json.loads(line)["text"] for line in Path("pairs.jsonl").read_text().splitlines()]
    judge = lit_detect.load(last("detect/ensemble"))
    scores = judge.detector.score(texts)  # of the beginnings of texts, which then were judged alone
    probabilities = judge.platt(scores)
    written = Path("runs/detect/ensemble/predictions.jsonl"), FORMER / "expected" / "detect.jsonl"
    files = (path.read_text().splitlines() for path in written)
    for *lines, score, probability in zip(*files, scores.tolist(), probabilities.tolist(), strict=True):
        row, wanted = map(json.loads, lines)
        assert {key: row[key] for key in ("index", "id", "tokens")}.items() <= wanted.items()
        assert score == pytest.approx(wanted["score"], **NEAR)
        assert probability == pytest.approx(wanted["probability"], **NEAR)


@pytest.mark.parametrize("run", RUNS)
def test_a_former_checkpoint_is_loaded_from_python(run, former):
    saved = torch.load(last(run), weights_only=True)
    assert former_names(saved["config"])
    model = RUNS[run].load_from_checkpoint(last(run), weights_only=True)
    pairs = zip(model.state_dict().items(), saved["state_dict"].items(), strict=True)
    for (name, weights), (former_name, former_weights) in pairs:
        inner = name.replace(".members.0.detector.", ".members.0.")  # the wrapper that normalises Unicode is new
        assert inner == former_name and torch.equal(weights, former_weights)
    checkpoint = load_checkpoint_file(last(run))
    assert not former_names([checkpoint["config"], checkpoint["hyper_parameters"]])


@pytest.mark.parametrize("run", RUNS)
def test_the_config_of_a_former_run_is_taken(run, former, capsys):
    config = f"runs/{run}/config.yaml"
    assert former_names(yaml.safe_load(Path(config).read_text()))
    main = MAINS[run.partition("/")[0]]
    assert main(["fit", "--config", config, "--print_config"]) == 0, capsys.readouterr().err
    assert not former_names(yaml.safe_load(capsys.readouterr().out))


@pytest.mark.parametrize("path", CONFIGS)
def test_a_former_config_is_taken(path, former, capsys):
    package, folder, _ = path.split("/")
    command = {"detector": "fit", "studies": "study"}.get(folder, folder)
    base = ["--config", "configs/detect/fit/texts.yaml"] if folder == "detector" else []
    assert former_names(yaml.safe_load(Path("configs", path).read_text()))
    args = [command, *base, "--config", f"configs/{path}", "--print_config"]
    assert MAINS[package](args) == 0, capsys.readouterr().err
    assert not former_names(yaml.safe_load(capsys.readouterr().out))
