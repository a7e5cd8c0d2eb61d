"""A trainer and an owner, each with a LightningModule of its own in its own folder, by the commands alone."""

import csv
import importlib
import json
import shutil
import sys
from pathlib import Path

import own_digits
import pytest
import torch
from crossing import command, files
from torch.utils.data import DataLoader, TensorDataset

from lit_valuation.data.labelled_sets import LabelledSet

pytestmark = pytest.mark.slow


def train(module, data, path, quiet):
    """Train a module as its author does, who knows nothing of ours, and write a checkpoint."""
    samples = LabelledSet(data / "train").load()
    torch.manual_seed(0)
    images = samples.inputs()
    trainer = quiet(max_epochs=8)
    trainer.fit(module, DataLoader(TensorDataset(images, samples.y), batch_size=32, shuffle=True))
    trainer.save_checkpoint(path)


def exchange(made, tmp_path, quiet, source, trainers, owners, seeds=2):
    """Ask, answer and rank with a trainer's and an owner's module; return the rows of the ranking and the answer."""
    trainer, owner = tmp_path / "trainer_home", tmp_path / "owner_home"
    for home, data in ((trainer, made / "data/trainer"), (owner, made / "data/owners/owner_1")):
        home.mkdir()
        shutil.copy(source, home / "our_secret_project.py")
        shutil.copytree(data, home / "data", ignore=shutil.ignore_patterns("ledger.jsonl"))
    train(trainers[1], trainer / "data", trainer / "model.ckpt", quiet)
    train(owners[1], owner / "data", owner / "model.ckpt", quiet)
    (trainer / "model.yaml").write_text(json.dumps({"class_path": f"our_secret_project.{trainers[0]}"}))
    ours = ["--ckpt_path", "model.ckpt", "--model", "model.yaml", "--data", "data"]

    asked = ["query", *ours, "--to", "[north]", "--output", "hard", "--per_class", 3, "--budget", 10]
    assert "does not name its classes" in command(trainer, *asked)
    shutil.copytree(trainer / "hard", owner / "hard")
    answered = ["select", "--query", "hard", "--data", "data", "--to", "trainer", "--output", "shared", "--limit", 30]
    answered += ["--selector", "GradientMatchingSelector", "--ckpt_path", "model.ckpt"]
    assert "or name the class of your LightningModule by --model" in command(owner, *answered, code=2)
    command(owner, *answered, "--model", f"our_secret_project.{owners[0]}")
    shutil.copytree(owner / "shared", trainer / "north")
    ranked = ["rank", "--query", "hard", "--answers", '{"north": "north"}', *ours, "--output", "ranking"]
    ranked += ["--seeds", seeds]
    assert "give --batch_size" in command(trainer, *ranked, code=2)
    command(trainer, *ranked, "--batch_size", 32)
    with (trainer / "ranking/ranking.csv").open() as file:
        rows = {row["owner"]: row for row in csv.DictReader(file)}
    return rows, owner / "shared"


def test_modules_of_both_parties_through_query_select_and_rank(made, tmp_path, quiet):
    source = Path(own_digits.__file__)
    rows, answer = exchange(
        made, tmp_path, quiet, source, ("Digits", own_digits.Digits(width=24)), ("Smoothed", own_digits.Smoothed())
    )
    assert set(rows) == {"north", "(nothing shared)"}
    assert 0 < float(rows["north"]["relative residual"]) < 1
    assert 0 <= float(rows["north"]["held-out hard cases"]) <= 1
    for name, content in files(answer).items():
        assert b"secret" not in content and b"Smoothed" not in content, name
    assert json.loads((answer / "manifest.json").read_bytes())["choice"]["model"] == "(a class of the owner's)"


@pytest.fixture
def example(monkeypatch):
    """The example of a module of one's own."""
    monkeypatch.syspath_prepend(Path(__file__).parents[3] / "examples")
    yield importlib.import_module("own_module")
    del sys.modules["own_module"]


@pytest.mark.parametrize(
    ("library", "trainers", "owners"), [("torchvision", "ResNet", "ResNet"), ("timm", "Timm", "Timm")]
)
def test_networks_of_others_in_a_module_of_one_s_own(library, trainers, owners, made, tmp_path, quiet, example):
    try:
        importlib.import_module(library)
    except Exception as error:  # also where it was built for another torch
        pytest.skip(f"{library} cannot be imported: {error}")
    kinds = [(name, getattr(example, name)(10)) for name in (trainers, owners)]
    rows, _ = exchange(made, tmp_path, quiet, Path(example.__file__), *kinds)
    assert 0 < float(rows["north"]["relative residual"]) < 1
