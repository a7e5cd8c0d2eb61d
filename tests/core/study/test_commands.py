"""Cells that are command lines: a real training in the cell's run folder, killed in its middle and gone on with."""

import csv
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from lit_core.cli import run
from lit_core.files.paths import locked_folder
from lit_core.study import study_verb

FOLDER = Path("runs/moe/words-smoke")
MODEL = """
data: {class_path: lit_moe.TokenDataModule, init_args: {root: %s, sources: {austen: 1.0}, sequence_length: 32,
  global_batch_size: 4, micro_batch_size: 2, validation_samples: 2}}
model: {class_path: lit_moe.MoELanguageModel, init_args: {decoder: {d_model: 16, n_heads: 2, d_ff: 16, n_layers: 1}}}
trainer: {accelerator: cpu, limit_val_batches: 1, enable_progress_bar: false, enable_model_summary: false,
  log_every_n_steps: 1}
"""
SEEDED = "--data.init_args.seed $seed --model.init_args.seed $seed --seed_everything $seed"
SCRIPT = """
import sys
from lit_core.cli import run
from lit_core.files.paths import locked_folder
from lit_core.study import study_verb
sys.exit(run("lit-moe", None, {"study": study_verb("lit_moe")}, None))
"""


@pytest.fixture
def study(tmp_path, monkeypatch, token_root):
    """Writes a study of trainings of so many steps and returns its command line."""
    monkeypatch.chdir(tmp_path)
    Path("model.yaml").write_text(MODEL % token_root)

    def write(seeds, *more, steps=3, every=1):
        flags = f"--trainer.max_steps {steps} --trainer.val_check_interval {2 * every}"
        commands = [f"fit --config model.yaml {flags} {SEEDED} --model.init_args.decoder.d_ff $width", *more]
        config = {
            "name": "words",
            "grids": {"fit": {"commands": commands, "vary": {"width": [16]}}},
            "sizes": {"smoke": {"seeds": seeds}},
        }
        Path("study.yaml").write_text(yaml.safe_dump(config))
        return ["study", "--config", "study.yaml"]

    return write


def main(args):
    return run("lit-moe", None, {"study": study_verb("lit_moe")}, args)


def results(folder=FOLDER):
    with (folder / "results.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "train/tokens_per_second"} for row in csv.DictReader(file)]


def test_a_training_in_its_own_run_folder(study, capsys):
    args = study([0])
    assert main(args) == 0, capsys.readouterr()
    (row,) = results()
    cell = FOLDER / "fit-width=16-seed=0"
    assert (cell / "checkpoints" / "last.ckpt").exists() and (cell / "config.yaml").exists()
    assert float(row["val/austen/loss"]) > 0 and len(row["data"]) == 16 and row["width"] == "16"
    Path("model.yaml").write_text(Path("model.yaml").read_text().replace("accelerator: cpu", "accelerator: tpux"))
    assert main(args) == 1  # what is in the config file belongs to the cell's config
    assert "tpux" in capsys.readouterr().err + (cell / "error.txt").read_text()


@pytest.mark.slow
def test_a_training_killed_in_its_middle_ends_as_one_never_killed(study):
    args = study([0, 1], "test --ckpt_path $run/checkpoints/last.ckpt", steps=60, every=5)
    assert main(args) == 0
    FOLDER.rename("never-killed")
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, *args], start_new_session=True)
    checkpoint = FOLDER / "fit-width=16-seed=1" / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()  # the training itself goes on, and as long as it does nobody else may start it
    assert main(args) in (0, 2)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(1)
    assert main(args) == 0
    assert results() == results(Path("never-killed"))


def test_sigterm_to_a_study_ends_its_training_too_and_saves_it(study):
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, *study([0], steps=100_000)], stderr=subprocess.PIPE)
    metrics = FOLDER / "fit-width=16-seed=0" / "metrics.csv"
    deadline = time.monotonic() + 60
    while not metrics.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.terminate()
    assert process.wait(60) == 143, process.stderr.read()
    with locked_folder(FOLDER, "a training, which inherits the lock, goes on"):
        assert (metrics.parent / "checkpoints" / "last.ckpt").exists()
