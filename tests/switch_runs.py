"""Tiny runs of each package that are stopped and resumed, and what is typed for each switch and callback of Lightning.

Every run has optimizer steps of 8 samples in micro-batches of 2, dropout, and a `Witness` of what was trained on.
"""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from lightning.pytorch import Callback
from torch import nn

import lit_detect.cli
import lit_moe.cli
import lit_valuation.cli
from lit_core.data import ResumeStream

FILES = ("--config", "tiny.yaml", "--config", "own.yaml")
TRAINER = """
seed_everything: 0
trainer:
  accelerator: cpu
  devices: {devices}
  strategy: {strategy}
  max_steps: 4
  max_epochs: -1
  log_every_n_steps: 1
  val_check_interval: {two_steps}
  check_val_every_n_epoch: null
  enable_progress_bar: false
  enable_model_summary: false
  callbacks:
    - {{class_path: switch_runs.Witness}}
"""
MOE = """
data:
  class_path: lit_moe.TokenDataModule
  init_args:
    {{root: {root}, sources: {{stdlib: 1}}, replay: {{austen: 1}}, sequence_length: 16, global_batch_size: 8,
    micro_batch_size: 2, validation_samples: 10, test_samples: 10}}
model:
  class_path: lit_moe.MoELanguageModel
  init_args:
    decoder:
      {{feed_forward: {{n_experts: 4, top_k: 2, expert_width: 16, n_shared: 1}}, n_layers: 2, d_model: 16, n_heads: 2,
      d_ff: 16}}
    router: {{class_path: lit_moe.nn.PenaltyRouter}}
    optimizer: {{class_path: torch.optim.AdamW, init_args: {{lr: 0.01, weight_decay: 0.1}}}}
    scheduler: {{class_path: lit_moe.schedules.WarmupCosine, init_args: {{total_steps: 4}}}}
trainer:
  callbacks+:
    - {{class_path: lit_moe.RouterBalance}}
    - {{class_path: lit_moe.ReplayMixing, init_args: {{fraction: 0.3}}}}
"""
VALUATION = """
data:
  class_path: lit_valuation.data.OwnersDataModule
  init_args: {{root: {root}, batch_size: 8, micro_batch_size: 2}}
model:
  class_path: lit_valuation.ClassifierTask
  init_args:
    network: {{class_path: switch_runs.Net}}
    optimizer: {{class_path: torch.optim.SGD, init_args: {{lr: 0.1, momentum: 0.9}}}}
    scheduler: {{class_path: lit_core.lightning.WarmupCosine, init_args: {{total_steps: 4}}}}
"""
DETECT = """
data:
  class_path: lit_detect.TextDataModule
  init_args: {{root: {root}, train: [pairs], batch_size: 8, micro_batch_size: 2}}
"""
ENCODER = """
model:
  class_path: lit_detect.DetectorTask
  init_args:
    detector: {{class_path: lit_detect.detectors.EncoderDetector, init_args: {{model: scratch-1x32, max_tokens: 32}}}}
    optimizer: {{class_path: torch.optim.AdamW, init_args: {{lr: 1.0e-3}}}}
    scheduler: {{class_path: lit_core.lightning.WarmupCosine, init_args: {{total_steps: 4}}}}
"""


#: What `ThroughputMonitor` counts, which is of the present command.
SINCE_RESUME = {"train/time", "train/batches", "train/samples"}


def is_exact(key):
    return "sec" not in key and key not in SINCE_RESUME


class Witness(Callback):
    """Writes what each rank trains on to ``witness.<rank>`` in the working directory, a line per micro-batch."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        seen = [batch[key].tolist() for key in ("source", "index") if key in batch]
        with open(f"witness.{trainer.global_rank}", "a") as file:
            file.write(json.dumps(seen) + "\n")


def nothing(trainer, pl_module):
    """A function for a callback that takes some."""


def batch_size(batch):
    return len(batch["index"])


class Fail(Callback):
    """Fails once, where the file ``fail`` tells: a hook, and how often it was called before."""

    def __init__(self):
        self.calls = 0

    def setup(self, trainer, pl_module, stage):
        path = Path("fail")
        self.hook, self.at = json.loads(path.read_text()) if path.exists() else ("none", 0)
        path.unlink(missing_ok=True)

    def on_train_batch_start(self, *_):
        self._call("on_train_batch_start")

    def on_before_optimizer_step(self, *_):
        self._call("on_before_optimizer_step")

    def on_train_batch_end(self, *_):
        self._call("on_train_batch_end")

    def _call(self, hook):
        self.calls += hook == self.hook
        if self.calls > self.at:
            raise RuntimeError(f"{hook} fails.")


class Net(nn.Sequential):
    """A classifier of somebody else's, with what is random or differs between devices."""

    def __init__(self):
        super().__init__(
            nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 10)
        )


@dataclass
class Project:
    """A package with a small config.

    Args:
        package: Short name of the package.
        main: Its command line.
        config: What its run is.
        prepare: Writes the data below a folder, and returns their root; None takes `token_root`.
        root: That root.
        monitored: A key that its validations log.
        devices: Number of devices of its runs.
    """

    package: str
    main: Callable
    config: str
    prepare: Callable | None
    monitored: str
    root: Path | None = None
    devices: int = 1

    @property
    def accumulation(self):
        """Micro-batches per optimizer step and device, which Lightning counts."""
        return 4 // self.devices

    def write(self, devices=1):
        """Write the config of runs on so many devices."""
        self.devices = devices
        layout = {"devices": self.devices, "strategy": "auto" if self.devices == 1 else "ddp"}
        Path("tiny.yaml").write_text(TRAINER.format(**layout, two_steps=2 * self.accumulation))
        Path("own.yaml").write_text(self.config.format(root=self.root))

    def last(self, run):
        return Path(f"runs/{self.package}/{run}/checkpoints/last.ckpt")

    def checkpoint(self, run):
        return torch.load(self.last(run), weights_only=True)

    def rows(self, run, clock=False):
        """Return the rows of a run's metrics.csv: its filled cells, without those that depend on the clock."""
        with open(f"runs/{self.package}/{run}/metrics.csv", newline="") as file:
            rows = [
                {key: value for key, value in row.items() if value and (clock or is_exact(key))}
                for row in csv.DictReader(file)
            ]
        return [row for row in rows if row.keys() > {"step", "epoch"}]

    def fit(self, *args):
        """Run ``fit``: in this process, or as a command with a process for each of several devices."""
        command = ["fit", *map(str, args)]
        if self.devices == 1:
            return self.main(command)
        path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
        command = [sys.executable, "-m", f"lit_{self.package}", *command]
        return subprocess.run(command, env=environment, timeout=240).returncode


def digits(folder):
    from lit_valuation.commands.divide import divide
    from lit_valuation.data.division import Division
    from lit_valuation.data.planting import PlantedBackground
    from lit_valuation.sources import Digits

    division = Division(train=60, val=20, test=20, owner_samples=4)
    divide(str(folder / "digits"), Digits(), PlantedBackground(["3", "8"]), division)
    return folder / "digits"


def pairs(folder):
    from lit_detect.data.prepare import prepare
    from lit_detect.formats import EmbeddedPairs, LitShiftJSONL

    records = list(EmbeddedPairs().records())
    wanted = [(split, label) for split in ("train", "val", "test") for label in (0, 1)]
    few = [record for kind in wanted for record in islice((r for r in records if (r.split, r.label) == kind), 24)]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(record.to_dict()) + "\n" for record in few))
    prepare(str(folder / "texts"), [LitShiftJSONL(str(folder / "pairs.jsonl"), "pairs")])
    return folder / "texts"


PROJECTS = {
    "moe": Project("moe", lit_moe.cli.main, MOE, None, "val/stdlib/loss"),
    "valuation": Project("valuation", lit_valuation.cli.main, VALUATION, digits, "val/all/loss"),
    "detect": Project("detect", lit_detect.cli.main, DETECT + ENCODER, pairs, "val/pairs/loss"),
}


def switches(accumulation):
    """Return what is typed for each argument of the Trainer that works and changes how a run trains, saves or stops.

    Args:
        accumulation: Micro-batches per optimizer step and device, which Lightning counts.
    """
    two_steps = 2 * accumulation
    two_epochs = [f"--trainer.limit_train_batches={two_steps}"]
    return {
        "accumulate_grad_batches": [accumulation],
        "benchmark": ["true"],
        "check_val_every_n_epoch": [
            1,
            f"--trainer.limit_train_batches={two_steps}",
            "--trainer.val_check_interval=1.0",
        ],
        "detect_anomaly": ["true"],
        "deterministic": ["true"],
        "enable_autolog_hparams": ["false"],
        "enable_model_summary": ["true"],
        "enable_progress_bar": ["true"],
        "gradient_clip_algorithm": ["value", "--trainer.gradient_clip_val=0.01"],
        "gradient_clip_val": [0.1],
        "inference_mode": ["false"],
        "limit_test_batches": [1],
        "limit_predict_batches": [1],
        "limit_train_batches": [two_steps],
        "limit_val_batches": [1],
        "log_every_n_steps": [2],
        "max_time": ["00:01:00:00"],
        "min_epochs": [1],
        "min_steps": [2],
        "model_registry": ["x"],
        "num_nodes": [1],
        "num_sanity_val_steps": [-1],
        "precision": ["64-true"],
        "profiler": ["simple"],
        "reload_dataloaders_every_n_epochs": [1, *two_epochs],
        "strategy": ["auto"],
        "sync_batchnorm": ["true"],
        "use_distributed_sampler": ["false"],
        "val_check_interval": [3 * accumulation],
    }


#: Those that every run here types.
ALWAYS = {"accelerator", "devices", "max_steps", "max_epochs", "callbacks", "plugins", "logger", "default_root_dir"}
#: Those after which nothing is there to resume.
KEEPS_NOTHING = {"fast_dev_run", "barebones", "enable_checkpointing"}
#: Those that do the same whatever the number of devices, or that are refused on several.
ALIKE = {
    *("benchmark", "enable_autolog_hparams", "enable_model_summary", "enable_progress_bar", "limit_predict_batches"),
    *("limit_test_batches", "log_every_n_steps", "min_epochs", "min_steps", "model_registry", "profiler", "strategy"),
    *("DeviceStatsMonitor", "LearningRateMonitor", "ModelSummary", "RichModelSummary", "RichProgressBar"),
    *("TQDMProgressBar", "num_nodes", "sync_batchnorm", "OnExceptionCheckpoint"),
}
#: That which needs a model with a backbone.
ELSEWHERE = {"BackboneFinetuning"}
#: Arguments of each callback that a config can name.
CALLED = {
    "DeviceStatsMonitor": {"cpu_stats": False},
    "EarlyStopping": {"monitor": "train/loss", "patience": 9},
    "EMAWeightAveraging": {"decay": 0.5},
    "LambdaCallback": {"on_train_start": "switch_runs.nothing"},
    "LearningRateMonitor": {"logging_interval": "step"},
    "ModelCheckpoint": {"monitor": "train/loss", "every_n_train_steps": 1, "save_top_k": 2, "filename": "best"},
    "ModelSummary": {"max_depth": 2},
    "OnExceptionCheckpoint": {"dirpath": "failed"},
    "RichModelSummary": {"max_depth": 2},
    "RichProgressBar": {},
    "ThroughputMonitor": {"batch_size_fn": "switch_runs.batch_size"},
    "Timer": {"duration": "00:01:00:00"},
    "TQDMProgressBar": {},
    "WeightAveraging": {},
}


def callback(name, **arguments):
    """Return what adds a callback of Lightning to a run, with other arguments than those above."""
    init_args = {**CALLED.get(name, {}), **arguments}
    added = {"class_path": f"lightning.pytorch.callbacks.{name}", "init_args": init_args}
    bar = ["--trainer.enable_progress_bar=true"] if name.endswith("Bar") else []
    return [f"--trainer.callbacks+={json.dumps(added)}", *bar]


def assert_resumes(project, *typed, stop="max_steps=2", end="max_steps=4"):
    """A run of four steps, and one of two that is resumed, train on the same samples to the same state and rows."""
    samples_seen()
    assert project.fit(*FILES, "--run", "whole", *typed, f"--trainer.{end}") == 0
    whole = samples_seen()
    assert project.fit(*FILES, "--run", "parts", *typed, f"--trainer.{stop}") == 0
    assert project.fit("--ckpt_path", project.last("parts"), f"--trainer.{end}") == 0
    assert samples_seen() == whole and len(whole) == project.devices
    assert_same_run(project)


def assert_same_run(project):
    """The runs ``whole`` and ``parts`` ended in the same state, with the same rows."""
    one, other = project.checkpoint("whole"), project.checkpoint("parts")
    assert one["global_step"] == other["global_step"] == 4
    for key in {"state_dict", "current_model_state", "optimizer_states", "lr_schedulers"} & one.keys():
        assert_equal(other[key], one[key], key)
    states = [checkpoint["callbacks"] for checkpoint in (one, other)]
    assert states[0].keys() == states[1].keys()
    for key in states[0].keys() - {"Timer"}:
        if "Checkpoint" not in key:  # these know the folder of the run
            assert_equal(states[1][key], states[0][key], key)
    assert project.rows("parts") == project.rows("whole")
    assert ResumeStream.__qualname__ in states[0] and any("train/loss" in row for row in project.rows("whole"))


def assert_equal(one, other, path):
    """Plain values and tensors are equal to the last bit."""
    if isinstance(other, torch.Tensor):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True, msg=path)
    elif isinstance(other, dict):
        assert one.keys() == other.keys(), path
        for key, value in other.items():
            assert_equal(one[key], value, f"{path}/{key}")
    elif isinstance(other, list | tuple):
        assert len(one) == len(other), path
        for number, value in enumerate(other):
            assert_equal(one[number], value, f"{path}/{number}")
    else:
        assert one == other, path


def samples_seen():
    """Return what each rank has trained on since the last call."""
    seen = {}
    for path in sorted(Path().glob("witness.?")):
        seen[path.name] = path.read_text().splitlines()
        path.unlink()
    return seen
