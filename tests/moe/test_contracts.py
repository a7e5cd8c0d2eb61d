"""The documented metric keys are exactly those that runs log."""

import csv
import re
from pathlib import Path

import pytest

from lit_moe.cli import main

DOCS = Path(__file__).parents[2] / "docs" / "contracts.md"
TINY = """
data:
  class_path: lit_moe.TokenDataModule
  init_args: {{root: {root}, sources: {{stdlib: 1}}, replay: {{austen: 1}}, sequence_length: 32, global_batch_size: 4,
    micro_batch_size: 2, validation_samples: 4, test_samples: 4}}
model:
  class_path: lit_moe.MoELanguageModel
  init_args:
    decoder: {{feed_forward: {{n_experts: 4, top_k: 2, expert_width: 8}}, n_layers: 2, d_model: 16, n_heads: 2}}
    router: {{class_path: lit_moe.nn.{router}}}
trainer:
  accelerator: cpu
  max_steps: 2
  log_every_n_steps: 1
  val_check_interval: 2
  check_val_every_n_epoch: null
  num_sanity_val_steps: 0
  enable_progress_bar: false
  callbacks:
    - class_path: lit_moe.RouterBalance
    - class_path: lit_moe.ReplayMixing
      init_args: {{fraction: 0.5}}
    - class_path: lit_moe.Forgetting
      init_args: {{old: [austen], new: [stdlib]}}
"""
DRIFT = """
trainer:
  callbacks+: {{class_path: lit_moe.RouterDrift, init_args: {{reference: {reference}}}}}
"""


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """The keys are those of metrics.csv, which has no pictures; drawing them takes half of the time."""
    monkeypatch.setattr("lit_core.lightning.pictures._galleries", lambda trainer: [])


def documented():
    keys = set()
    for line in DOCS.read_text().split("## Metric keys\n")[1].split("\n## ")[0].splitlines():
        if line.startswith("| `"):
            keys |= set(re.findall(r"`([^`]+)`", line.split("|")[1]))
    return keys


def logged(path):
    with path.open(newline="") as file:
        keys = set(next(csv.reader(file))) - {"step", "epoch"}
    keys = {re.sub(r"layer_\d\d", "layer_{ii}", key) for key in keys}
    return {re.sub("/(austen|stdlib)/", "/{source}/", key) for key in keys}


def test_the_documented_keys_are_those_that_are_logged(token_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = set()
    for router in ("BiasRouter", "SinkhornRouter", "PenaltyRouter"):
        Path("tiny.yaml").write_text(TINY.format(root=token_root, router=router))
        assert main(["fit", "--config", "tiny.yaml", "--run", router]) == 0
        found |= logged(Path(f"runs/moe/{router}/metrics.csv"))
        if router == "BiasRouter":
            continue
        checkpoint = f"runs/moe/{router}/checkpoints/last.ckpt"
        Path("drift.yaml").write_text(DRIFT.format(reference=checkpoint))
        for command in ("validate", "test"):
            assert main([command, "--config", "drift.yaml", "--ckpt_path", checkpoint]) == 0
        found |= logged(Path(f"runs/moe/{router}/metrics.csv"))
    assert found == documented()


def counters(scope):
    """The documented counters whose unit says what they count."""
    table = DOCS.read_text().split("## Metric keys\n")[1].split("\n## ")[0]
    rows = [line.split("|") for line in table.splitlines() if line.startswith("| `")]
    return {key for row in rows if scope in row[2] for key in re.findall(r"`([^`]+)`", row[1])}


def test_a_counter_counts_what_the_contract_says(token_root, tmp_path, monkeypatch):
    """In a run, a branch of it, a resume of that, and branches in windows of other lengths."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(TINY.format(root=token_root, router="TopKRouter"))
    of_run = counters("of this run") | counters("in this run")
    of_life = counters("in the life of the weights")
    names = ("samples", "tokens", "epochs")
    parts = {f"train/{{source}}/{name}" for name in names}
    assert of_run == {"train/tokens", "train/flops", "val/tokens", "val/flops"} | parts
    assert of_life == {"train/lifetime_tokens"} | {f"train/{{source}}/lifetime_{name}" for name in names}
    checkpoint = "runs/moe/{}/checkpoints/last.ckpt"
    life = dict.fromkeys(("stdlib", "austen"), 0)
    for run, args, length, steps in (
        ("first", [], 32, (0, 2)),
        ("branch", ["--branch_from", checkpoint.format("first")], 32, (0, 2)),
        ("branch", ["--ckpt_path", checkpoint.format("branch"), "--trainer.max_steps", "4"], 32, (2, 4)),
        ("longer", ["--branch_from", checkpoint.format("branch")], 40, (0, 2)),
        ("shorter", ["--branch_from", checkpoint.format("longer")], 16, (0, 2)),
    ):
        if "--ckpt_path" not in args:
            args += ["--config", "tiny.yaml", "--run", run, "--data.init_args.sequence_length", str(length)]
        assert main(["fit", *args]) == 0
        with open(f"runs/moe/{run}/metrics.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        found = {key: float(row[key]) for row in rows for key in row if row[key]}
        tokens = steps[1] * 4 * length
        assert found["train/tokens"] == found["val/tokens"] == tokens
        assert found["train/flops"] == found["val/flops"]
        for source in life:
            life[source] += (steps[1] - steps[0]) * 2 * length
            expected = {"tokens": tokens / 2, "samples": steps[1] * 2, "lifetime_tokens": life[source]}
            assert {name: found[f"train/{source}/{name}"] for name in expected} == expected
            size = found[f"train/{source}/samples"] / found[f"train/{source}/epochs"]
            assert size == pytest.approx(round(size))
            position = found[f"train/{source}/lifetime_samples"]
            assert found[f"train/{source}/lifetime_epochs"] == pytest.approx(position / size)
            assert 0 <= life[source] - position * length < 40 + 16  # each of two conversions rounds to whole windows
        assert found["train/lifetime_tokens"] == sum(life.values())
