"""What the tests of the exchange share: how a query is made and answered, and what a user types."""

import os
import subprocess
import sys
from pathlib import Path

from lit_valuation.commands.query import query
from lit_valuation.commands.select import select
from lit_valuation.encoders import Identity
from lit_valuation.selectors import FeatureSimilaritySelector

SHORT = """
seed_everything: 0
data: {class_path: OwnersDataModule, init_args: {root: data, batch_size: 32}}
model:
  class_path: ClassifierTask
  init_args: {network: {class_path: lit_valuation.nn.MLP, init_args: {hidden: [32]}}}
trainer:
  max_steps: 60
  limit_val_batches: 0
  accelerator: cpu
  devices: 1
  enable_progress_bar: false
  enable_model_summary: false
  callbacks:
    - class_path: lit_core.callbacks.RunCheckpoint
      init_args: {every_n_train_steps: 20, save_top_k: -1}
"""


def checkpoint(folder, party="trainer", name="last"):
    return str(folder / f"runs/valuation/{party}/checkpoints/{name}.ckpt")


def ask(folder, **changes):
    given = {"data": str(folder / "data/trainer"), "to": ["alice", "bob"], "output": str(folder / "query")}
    query(checkpoint(folder), **given | {"per_class": 3, "budget": 12} | changes)


def answer(folder, number, **changes):
    given = {
        "query": str(folder / "query"),
        "data": str(folder / f"data/owners/owner_{number}"),
        "to": "trainer",
        "output": str(folder / f"answer_{number}"),
        "selector": FeatureSimilaritySelector(),
        "limit": 20,
        "encoder": Identity(),
    }
    select(**given | changes)


def command(folder, *args, code=0):
    """Run ``lit-valuation`` as a new user would: another process, in a folder of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "lit_valuation", *map(str, args)]
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def files(folder):
    """Return the content of every file below a folder, by its name."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}
