"""Each switch and callback of Lightning that works resumes to the run that was never stopped."""

import json
from pathlib import Path

import pytest
import torch
from fit_run import checkpoint, rows, write_config

from lit_core.lightning.switches import CALLBACKS, TRAINER
from lit_moe.cli import main

pytestmark = pytest.mark.filterwarnings("ignore")

#: What is typed for each argument of the Trainer that works and that changes how a run trains, saves or stops.
TYPED = {
    "accumulate_grad_batches": [4],
    "benchmark": ["true"],
    "check_val_every_n_epoch": [1, "--trainer.limit_train_batches=8", "--trainer.val_check_interval=1.0"],
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
    "limit_train_batches": [8],
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
    "reload_dataloaders_every_n_epochs": [1, "--trainer.limit_train_batches=8"],
    "strategy": ["auto"],
    "sync_batchnorm": ["true"],
    "use_distributed_sampler": ["false"],
    "val_check_interval": [12],
}
#: Those that every test of this package types.
ALWAYS = {"accelerator", "devices", "max_steps", "max_epochs", "callbacks", "plugins", "logger", "default_root_dir"}
#: Those after which nothing is there to resume.
KEEPS_NOTHING = {"fast_dev_run", "barebones", "enable_checkpointing"}
#: Arguments of each callback that a config can name.
BUILT_FROM = {
    "DeviceStatsMonitor": {"cpu_stats": False},
    "EarlyStopping": {"monitor": "val/stdlib/loss", "patience": 9},
    "EMAWeightAveraging": {"decay": 0.5},
    "LearningRateMonitor": {"logging_interval": "step"},
    "ModelCheckpoint": {"monitor": "train/loss", "every_n_train_steps": 1, "save_top_k": 2, "filename": "best"},
    "ModelSummary": {"max_depth": 2},
    "OnExceptionCheckpoint": {"dirpath": "failed"},
    "RichModelSummary": {"max_depth": 2},
    "RichProgressBar": {},
    "Timer": {"duration": "00:01:00:00"},
    "TQDMProgressBar": {},
    "WeightAveraging": {},
}
#: Bases of callbacks of the user, and those that take functions.
IN_PYTHON = {
    *("BackboneFinetuning", "BaseFinetuning", "BasePredictionWriter", "Callback", "Checkpoint", "ProgressBar"),
    *("LambdaCallback", "ThroughputMonitor"),
}


def test_each_that_is_not_refused_is_tried():
    works = {name for name, use in TRAINER.items() if use.verdict != "refused"}
    assert works == TYPED.keys() | ALWAYS | KEEPS_NOTHING
    works = {name for name, use in CALLBACKS.items() if use.verdict != "refused"}
    assert works == BUILT_FROM.keys() | IN_PYTHON


@pytest.fixture
def fit(tmp_path, monkeypatch, token_root):
    monkeypatch.chdir(tmp_path)
    write_config(token_root, steps=4, every=0, router="PenaltyRouter", length=16)
    config = Path("tiny.yaml").read_text().splitlines(keepends=True)
    slow = ("RouterBalance", "Forgetting", "SampleText")
    Path("tiny.yaml").write_text("".join(line for line in config if not any(name in line for name in slow)))

    def fit(*args):
        return main(["fit", *map(str, args)])

    return fit


def assert_resumes(fit, *typed):
    """A run of four steps, and one of two that is resumed, train on the same samples to the same weights."""
    Path("witness.0").unlink(missing_ok=True)
    assert fit("--config", "tiny.yaml", "--run", "whole", *typed) == 0
    whole = samples_seen()
    stop = ["--model.init_args.scheduler.init_args.total_steps=4", "--trainer.max_steps=2"]
    assert fit("--config", "tiny.yaml", "--run", "parts", *typed, *stop) == 0
    assert fit("--ckpt_path", "runs/moe/parts/checkpoints/last.ckpt", "--trainer.max_steps=4") == 0
    assert samples_seen() == whole
    one, other = checkpoint("whole"), checkpoint("parts")
    assert one["global_step"] == other["global_step"] == 4
    for key in {"state_dict", "current_model_state"} & one.keys():
        for name, value in one[key].items():
            torch.testing.assert_close(other[key][name], value, rtol=0, atol=0, msg=name)
    assert one["callbacks"]["ResumeStream"] == other["callbacks"]["ResumeStream"]
    losses = [[row["train/loss"] for row in rows(run) if "train/loss" in row] for run in ("whole", "parts")]
    assert losses[0] == losses[1] and losses[0]


def samples_seen():
    path = Path("witness.0")
    seen = [json.loads(line)["ids"] for line in path.read_text().splitlines()]
    path.unlink()
    return seen


def named(name, arguments):
    callback = {"class_path": f"lightning.pytorch.callbacks.{name}", "init_args": arguments}
    bar = ["--trainer.enable_progress_bar=true"] if name.endswith("Bar") else []
    return [f"--trainer.callbacks+={json.dumps(callback)}", *bar]


# WeightAveraging saves weights twice, Lightning rounds double precision, Timer's config has an enumeration
def test_those_that_need_our_help_resume(fit):
    timer = named("Timer", BUILT_FROM["Timer"])
    assert_resumes(fit, *named("WeightAveraging", {}), *timer, "--trainer.precision=64-true")


def test_averages_do_not_take_the_place_of_the_last_weights(fit):
    typed = ["--trainer.limit_train_batches=8", "--trainer.max_steps=-1", *named("WeightAveraging", {})]
    assert fit("--config", "tiny.yaml", "--run", "whole", *typed, "--trainer.max_epochs=2") == 0
    assert fit("--config", "tiny.yaml", "--run", "parts", *typed, "--trainer.max_epochs=1") == 0
    assert fit("--ckpt_path", "runs/moe/parts/checkpoints/last.ckpt", "--trainer.max_epochs=2") == 0
    one, other = checkpoint("whole"), checkpoint("parts")
    assert one["global_step"] == other["global_step"] == 4
    for key in ("state_dict", "current_model_state"):
        for name, value in one[key].items():
            torch.testing.assert_close(other[key][name], value, rtol=0, atol=0, msg=name)


def test_barebones_needs_no_other_switch(fit):
    without = ["log_every_n_steps", "enable_progress_bar", "enable_model_summary"]
    assert fit("--config", "tiny.yaml", "--run", "bare", "--trainer.barebones=true", "--trainer.callbacks=null",
               "--data.init_args.replay=null", *(f"--trainer.{name}=null" for name in without)) == 0  # fmt: skip
    written = {path.name for path in Path("runs/moe/bare").iterdir()}
    assert "config.yaml" in written and not written & {"metrics.csv", "checkpoints"}


def test_what_is_missing_is_one_sentence(fit, capsys):
    for typed, words in (
        (["--trainer.precision=transformer-engine"], ["transformer_engine", "not met"]),
        (named("BackboneFinetuning", {}), ["MoELanguageModel has no attribute `backbone`"]),
        (
            [*named("EarlyStopping", {"monitor": "val/none/loss"}), "--trainer.val_check_interval=4"],
            ["`val/none/loss`", "`val/stdlib/loss`"],
        ),
    ):
        assert fit("--config", "tiny.yaml", "--run", "missing", *typed) == 2
        error = capsys.readouterr().err
        assert all(word in error for word in words) and "Traceback" not in error


# three runs for each of forty names
@pytest.mark.slow
@pytest.mark.parametrize("name", TYPED)
def test_a_switch_that_works_resumes(fit, name):
    value, *others = TYPED[name]
    assert_resumes(fit, f"--trainer.{name}={value}", *others)


# as above
@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed", "16-mixed", "32-true"])
def test_each_precision_resumes(fit, precision):
    assert_resumes(fit, f"--trainer.precision={precision}")


# as above
@pytest.mark.slow
@pytest.mark.parametrize("name", BUILT_FROM)
def test_a_callback_that_works_resumes(fit, name):
    assert_resumes(fit, *named(name, BUILT_FROM[name]))
