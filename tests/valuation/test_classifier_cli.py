"""`lit-valuation fit`, `test` and `predict`; and the documented metric keys are exactly those that runs log."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from metric_keys import documented, logged

from lit_core.files.paths import locked_path
from lit_valuation.cli import main

HERE = Path(__file__).parent
LAST = "runs/valuation/first/checkpoints/last.ckpt"
CONFIG = """
data: {class_path: digits_data.DigitsData}
model:
  class_path: lit_valuation.ClassifierTask
  init_args:
    network: {class_path: lit_valuation.nn.ConvNet, init_args: {channels: [4], hidden: 16}}
    optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.1, momentum: 0.9}}
    scheduler: {class_path: lit_core.lightning.WarmupCosine, init_args: {total_steps: "${trainer.max_steps}"}}
    hard_classes: ["8"]
trainer:
  accelerator: cpu
  max_steps: 8
  log_every_n_steps: 1
  enable_progress_bar: false
  enable_model_summary: false
  callbacks:
    - {class_path: lit_valuation.GradientMatching, init_args: {budget: 100, every_n_epochs: 1}}
"""
NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))

    def forward(self, x):
        return self.layers(x)
"""


@pytest.fixture(autouse=True)
def in_empty_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("tiny.yaml").write_text(CONFIG)


def rows(path):
    with Path(path).open(newline="") as file:
        return list(csv.reader(file))


def test_fit_test_and_predict_need_no_more_than_the_checkpoint(capsys):
    assert main(["fit", "--config", "tiny.yaml", "--run", "first"]) == 0
    assert main(["test", "--ckpt_path", LAST]) == 0
    assert main(["predict", "--ckpt_path", LAST, "--trainer.enable_progress_bar", "false"]) == 0
    header, *table = rows("runs/valuation/first/predictions.csv")
    assert header == ["index", "class", *"0123456789"] and [row[0] for row in table] == [str(i) for i in range(101)]
    for row in table:
        values = [float(value) for value in row[2:]]
        assert sum(values) == pytest.approx(1, abs=1e-4) and row[1] == str(values.index(max(values)))
    Path("runs/valuation/first/predictions.csv").write_text("of others")
    for more, code in (([], 2), (["--overwrite"], 0)):
        assert main(["predict", "--ckpt_path", LAST, "--trainer.enable_progress_bar", "false", *more]) == code
        assert (rows("runs/valuation/first/predictions.csv") == [["of others"]]) == bool(code)
    with locked_path(Path("runs/valuation/first/predictions.csv"), ""):
        line = ["predict", "--ckpt_path", LAST, "--trainer.enable_progress_bar", "false", "--overwrite"]
        assert main(line) == 2
    said = capsys.readouterr().err
    assert "predictions.csv, which exists already; give another path, remove it, or add --overwrite" in said
    assert f"which another command is writing; wait for it. It is process {os.getpid()}" in said
    checkpoint = torch.load(LAST, weights_only=True)
    assert checkpoint["classes"] == list("0123456789") and checkpoint["input_shape"] == [1, 8, 8]

    keys = logged("runs/valuation/first/metrics.csv")
    keys = {key.replace("/held_out/", "/{source}/").replace("recall/8", "recall/{class}") for key in keys}
    assert keys == documented("ClassifierTask", "GradientMatching", "UnmovedWeights")


def test_a_foreign_network_is_given_whole():
    Path("net.py").write_text(NET)
    sys.path.insert(0, os.getcwd())
    try:
        network = "{class_path: net.Net, init_args: {width: 12}}"
        assert main(["fit", "--config", "tiny.yaml", "--run", "first", f"--model.init_args.network={network}"]) == 0
        assert main(["test", "--ckpt_path", LAST]) == 0
    finally:
        sys.path.remove(os.getcwd())


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--model.init_args.hard_classes=[nine]"], "`hard_classes` names 'nine'"),
        (["--model.init_args.network.init_args.hidden=0"], "hidden is 0"),
        (["--trainer.callbacks.init_args.budget=0"], "`budget` is 0"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_nothing(flags, words, capfd):
    assert main(["fit", "--config", "tiny.yaml", *flags]) == 2
    error = capfd.readouterr().err
    assert words in error and "Traceback" not in error and not Path("runs").exists()


@pytest.mark.slow
def test_two_devices_train_test_and_predict_as_one():
    """As users start it: `python -m lit_valuation` with the packaged config."""
    path = os.pathsep.join([str(HERE), str(HERE.parents[1])])

    def run(*args):
        command = [sys.executable, "-m", "lit_valuation", *args]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr

    two = ["--config", "configs/trainer/ddp_cpu2.yaml"]
    run("fit", "--config", "tiny.yaml", "--run", "first")
    run("fit", "--config", "tiny.yaml", *two, "--run", "second")
    weights = [torch.load(LAST.replace("first", run), weights_only=True)["state_dict"] for run in ("first", "second")]
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, atol=2e-5, rtol=1e-3)
    for devices in ([], two):
        run("predict", "--ckpt_path", LAST, *devices, "--run", f"predict-{len(devices)}")
    tables = [rows(f"runs/valuation/predict-{devices}/predictions.csv") for devices in (0, 2)]
    assert [row[:2] for row in tables[0]] == [row[:2] for row in tables[1]]
