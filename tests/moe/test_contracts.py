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
    for router in ("SinkhornRouter", "PenaltyRouter"):
        Path("tiny.yaml").write_text(TINY.format(root=token_root, router=router))
        assert main(["fit", "--config", "tiny.yaml", "--run", router]) == 0
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
    """In a run, a branch of it, and a branch of that in windows of another length."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(TINY.format(root=token_root, router="TopKRouter"))
    before = dict.fromkeys(("stdlib", "austen"), 0)
    parent: list[str] = []
    for number, length in enumerate((32, 32, 16)):
        run = ["--run", str(number), "--data.init_args.sequence_length", str(length)]
        assert main(["fit", "--config", "tiny.yaml", *run, *parent]) == 0
        parent = ["--branch_from", f"runs/moe/{number}/checkpoints/last.ckpt"]
        with open(f"runs/moe/{number}/metrics.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        last = {key: float(row[key]) for row in rows for key in row if row[key]}
        tokens = 2 * 4 * length
        of_run = counters("of this run") | counters("in this run")
        assert of_run == {"train/tokens", "train/flops", "val/tokens", "val/flops"}
        for key in of_run:  # all tokens of these two steps, and no others
            per_token = last["train/flops"] / tokens
            assert last[key] == (tokens if key.endswith("tokens") else per_token * tokens), key
            assert last[key] == last[key.replace("val/", "train/")]
        of_life = counters("in the life of the weights")
        assert of_life == {f"train/{{source}}/{name}" for name in ("samples", "tokens", "epochs")}
        for source in before:
            before[source] += tokens // 2
            found = {key: last[key.replace("{source}", source)] for key in of_life}
            size = found["train/{source}/samples"] / found["train/{source}/epochs"]
            assert found["train/{source}/tokens"] == before[source] == found["train/{source}/samples"] * length
            assert size == pytest.approx(round(size))
