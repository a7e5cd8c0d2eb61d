"""`python -m lit_moe` as users start it, on a tiny model: for the tests, with a callback for their processes."""

import csv
import json
import os
import signal
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback

from lit_core.lightning.later_weights import lacks_weights

#: float32 sums in another order; seen: 4e-7 of a logged value, 3e-6 of a weight after 60 steps
VALUE, WEIGHT = {"rel": 1e-5, "abs": 1e-6}, {"rtol": 1e-4, "atol": 2e-5}
#: Rows of these keys depend on the clock.
WALL_CLOCK = ("train/tokens_per_second",)
CONFIG = """
data:
  class_path: lit_moe.TokenDataModule
  init_args:
    {{root: {root}, sources: {{stdlib: 1}}, replay: {{austen: 1}}, sequence_length: {length}, global_batch_size: 8,
    micro_batch_size: 2, validation_samples: 10, test_samples: 10}}
model:
  class_path: lit_moe.MoELanguageModel
  init_args:
    decoder:
      {{feed_forward: {{n_experts: 4, top_k: 2, expert_width: 16, n_shared: 1}}, n_layers: 2, d_model: 16, n_heads: 2,
      d_ff: 16}}
    router: {{class_path: lit_moe.nn.{router}}}
    optimizer: {{class_path: torch.optim.AdamW, init_args: {{lr: 0.01, weight_decay: 0.1}}}}
    scheduler:
      class_path: lit_moe.schedules.WarmupCosine
      init_args: {{total_steps: {steps}}}
trainer:
  accelerator: cpu
  devices: 1
  max_steps: {steps}
  max_epochs: -1
  log_every_n_steps: 1
  gradient_clip_val: 1.0
  check_val_every_n_epoch: null
  enable_progress_bar: false
  enable_model_summary: false
  callbacks:
    - {{class_path: lit_moe.RouterBalance, init_args: {{heat_map_every: 50}}}}
    - {{class_path: lit_moe.ReplayMixing, init_args: {{fraction: 0.3}}}}
    - {{class_path: lit_moe.Forgetting, init_args: {{old: [austen], new: [stdlib]}}}}
    - {{class_path: lit_moe.callbacks.SampleText, init_args: {{prompts: [The], max_new_tokens: 3}}}}
    - {{class_path: lit_core.callbacks.RunCheckpoint, init_args: {{every_n_train_steps: {every}}}}}
    - {{class_path: fit_run.Witness, init_args: {{path: {witness}}}}}
"""


class Witness(Callback):
    """Writes down what each rank trains on: a line per micro-batch, once it is done.

    Args:
        path: File to which the rank is appended.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        names = trainer.train_dataloader.stream.names
        ids = [f"{names[s]}:{i}" for s, i in zip(batch["source"].tolist(), batch["index"].tolist(), strict=True)]
        self.row = {
            "session": int(os.environ.get("SESSION", 0)),
            "pid": os.getpid(),
            "step": trainer.global_step,
            "epoch": trainer.current_epoch,
            "batch_idx": batch_idx,
            "ids": ids,
            "tokens": batch["input_ids"].sum(1).tolist(),
        }

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        with open(f"{self.path}.{trainer.global_rank}", "a") as file:
            file.write(json.dumps(self.row) + "\n")


class WeightsAtSetup(Callback):
    """Writes down whether the model was built without weights: a line per command and rank.

    Args:
        path: File to which the rank is appended.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def setup(self, trainer, pl_module, stage):
        with open(f"{self.path}.{trainer.global_rank}", "a") as file:
            file.write(f"{lacks_weights(pl_module)}\n")


class Poison(Callback):
    """Makes the loss of one rank NaN.

    Args:
        rank: The rank.
        step: The optimizer step.
    """

    def __init__(self, rank: int, step: int) -> None:
        self.rank, self.step = rank, step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if (trainer.global_rank, trainer.global_step) == (self.rank, self.step):
            next(pl_module.parameters()).data.fill_(torch.nan)


def write_config(root, *, steps=6, every=2, router="SinkhornRouter", length=32, path="tiny.yaml"):
    witness = Path("witness").absolute()
    text = CONFIG.format(root=root, steps=steps, every=every, router=router, length=length, witness=witness)
    Path(path).write_text(text)


def layout(devices=1, micro=2, workers=0, check_every=None):
    """Return the flags of a layout; validation every so many optimizer steps."""
    flags = [f"--data.init_args.micro_batch_size={micro}", f"--data.init_args.num_workers={workers}"]
    flags += [f"--trainer.devices={devices}", f"--trainer.strategy={'ddp' if devices > 1 else 'auto'}"]
    if check_every:  # Lightning counts micro-batches
        flags += [f"--trainer.val_check_interval={check_every * 8 // (devices * micro)}"]
    return flags


def start(*args, session=0, log="log"):
    """Start a command in a process group of its own, in the working directory."""
    here = Path(__file__).parent
    path = f"{here}{os.pathsep}{here.parents[1]}"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "SESSION": str(session), "PYTHONPATH": path}
    with open(log, "a") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "lit_moe", *map(str, args)],
            stdout=file,
            stderr=file,
            env=environment,
            start_new_session=True,
        )


def finish(process, timeout=240, log="log"):
    """Wait for a command, and end what it leaves behind."""
    try:
        return process.wait(timeout)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"hung:\n{Path(log).read_text()[-3000:]}") from None
    finally:
        kill(process)


def kill(process):
    """Kill all ranks and workers of a command."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def run(*args, session=0, log="log", code=0):
    assert finish(start(*args, session=session, log=log), log=log) == code, Path(log).read_text()[-3000:]


def rows(run, clock=False):
    """Return the rows of a run's metrics.csv: its filled cells, without those that depend on the clock."""
    with open(f"runs/moe/{run}/metrics.csv", newline="") as file:
        return [
            {key: value for key, value in row.items() if value and (clock or key not in WALL_CLOCK)}
            for row in csv.DictReader(file)
        ]


def witnessed(path="witness"):
    """Return what each rank trained on, as (rank, row); a last line may be torn by a kill."""
    lines = []
    for file in sorted(Path(path).absolute().parent.glob(f"{Path(path).name}.[0-9]")):
        rank = int(file.suffix[1:])
        lines += [(rank, json.loads(line)) for line in file.read_text().splitlines(True) if line.endswith("}\n")]
    return lines


def last_step(path="witness"):
    """Return the highest optimizer step of which rank 0 finished a micro-batch; -1 if none."""
    file = Path(f"{path}.0")
    if not file.exists():
        return -1
    with file.open("rb") as stream:
        stream.seek(max(0, file.stat().st_size - 4000))
        lines = [line for line in stream.read().splitlines(True) if line.startswith(b"{") and line.endswith(b"}\n")]
    return json.loads(lines[-1])["step"] if lines else -1


def checkpoint(run, name="last.ckpt"):
    return torch.load(f"runs/moe/{run}/checkpoints/{name}", weights_only=True)


def assert_close_rows(mine, theirs):
    assert [(row["step"], set(row)) for row in mine] == [(row["step"], set(row)) for row in theirs]
    for one, other in zip(mine, theirs, strict=True):
        for key, value in one.items():
            assert float(value) == pytest.approx(float(other[key]), **VALUE), (one["step"], key)


def assert_close_weights(mine, theirs):
    for name, weight in theirs["state_dict"].items():
        torch.testing.assert_close(mine["state_dict"][name], weight, msg=name, **WEIGHT)


def samples(path):
    """Return what each optimizer step trained on, over all ranks: sorted (id, sum of its tokens) by step."""
    seen = sorted(
        (row["step"], *sample) for _, row in witnessed(path) for sample in zip(row["ids"], row["tokens"], strict=True)
    )
    return {step: [sample[1:] for sample in group] for step, group in groupby(seen, key=lambda sample: sample[0])}
