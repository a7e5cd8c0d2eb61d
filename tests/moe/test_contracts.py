"""The documented metric keys are exactly those that runs log."""

import csv
import re
from pathlib import Path

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
