"""Each switch and callback of Lightning that works resumes, in each package, to the run that was never stopped."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from switch_runs import (
    ALIKE,
    ALWAYS,
    CALLED,
    ELSEWHERE,
    FILES,
    KEEPS_NOTHING,
    PROJECTS,
    assert_resumes,
    assert_same_run,
    callback,
    switches,
)

from lit_core.lightning.switches import CALLBACKS, TRAINER

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="session")
def roots(tmp_path_factory, token_root):
    return {
        name: project.prepare(tmp_path_factory.mktemp(name)) if project.prepare else token_root
        for name, project in PROJECTS.items()
    }


@pytest.fixture(params=PROJECTS)
def project(request, tmp_path, monkeypatch, roots):
    monkeypatch.chdir(tmp_path)
    project = replace(PROJECTS[request.param], root=roots[request.param])
    project.write()
    return project


@pytest.fixture
def project_on_two(tmp_path, monkeypatch, roots):
    """The one with batch norms."""
    monkeypatch.chdir(tmp_path)
    project = replace(PROJECTS["valuation"], root=roots["valuation"])
    project.write(devices=2)
    return project


def on_one_and_two(names):
    """Parameters of a test: each name on one device, and on two where that may matter."""
    cases = [(name, devices) for devices in (1, 2) for name in names if devices == 1 or name not in ALIKE]
    return pytest.mark.parametrize(("name", "devices"), cases)


#: The model with batch norms in the fast set, all in the slow one.
ONE_MODEL = pytest.mark.parametrize(
    "project", ["valuation", *(pytest.param(n, marks=pytest.mark.slow) for n in ("moe", "detect"))], indirect=True
)


def arguments(project, name):
    return {"monitor": project.monitored} if name == "EarlyStopping" else {}


def test_each_that_is_not_refused_is_tried():
    works = {name for name, use in TRAINER.items() if use.verdict != "refused"}
    assert works == switches(1).keys() | ALWAYS | KEEPS_NOTHING
    works = {name for name, use in CALLBACKS.items() if use.verdict == "works"}
    assert works == CALLED.keys() | ELSEWHERE


# WeightAveraging saves weights twice and copies the model, Lightning rounds double precision, Timer has an enumeration
def test_those_that_need_our_help_resume(project):
    assert_resumes(project, *callback("WeightAveraging"), *callback("Timer"), "--trainer.precision=64-true")


def test_averages_on_two_devices_resume(project_on_two):
    assert_resumes(project_on_two, *callback("EMAWeightAveraging"))


# three runs for each
@ONE_MODEL
def test_averages_do_not_take_the_place_of_the_last_weights(project):
    two_epochs = ["--trainer.limit_train_batches=8", "--trainer.max_steps=-1", *callback("WeightAveraging")]
    assert_resumes(project, *two_epochs, stop="max_epochs=1", end="max_epochs=2")


def test_those_that_keep_nothing_train(project):
    for name in KEEPS_NOTHING - {"barebones"}:
        value = {"fast_dev_run": "true", "enable_checkpointing": "false"}[name]
        assert project.fit(*FILES, "--run", name, f"--trainer.{name}={value}") == 0
        assert not project.last(name).exists()
    bare = {"log_every_n_steps": "null", "enable_progress_bar": "null", "enable_model_summary": "null"}
    bare |= {"barebones": "true", "callbacks": "null", "val_check_interval": "null"}
    needed = ["--data.init_args.replay=null"] if project.package == "moe" else []
    assert project.fit(*FILES, "--run", "bare", *needed, *(f"--trainer.{key}={bare[key]}" for key in bare)) == 0
    written = {path.name for path in project.last("bare").parents[1].iterdir()}
    assert "config.yaml" in written and not written & {"metrics.csv", "checkpoints"}


def test_what_is_missing_is_one_sentence(project, capsys):
    for typed, words in (
        (["--trainer.precision=transformer-engine"], ["transformer_engine", "not met"]),
        (callback("BackboneFinetuning"), ["has no attribute `backbone`"]),
        (callback("EarlyStopping", monitor="val/none/loss"), ["`val/none/loss`", f"`{project.monitored}`"]),
    ):
        assert project.fit(*FILES, "--run", "missing", *typed) == 2
        error = capsys.readouterr().err
        assert all(word in error for word in words) and "Traceback" not in error


#: Hooks that fail, and after how many calls: in the middle of an accumulation, before the optimizer steps, after it.
FAILURES = {"on_train_batch_start": 10, "on_before_optimizer_step": 2, "on_train_batch_end": 11}


# three runs for each
@ONE_MODEL
@pytest.mark.parametrize("hook", FAILURES)
def test_what_an_exception_saves_resumes(project, hook):
    typed = ["--trainer.callbacks+=switch_runs.Fail", *callback("OnExceptionCheckpoint")]
    assert project.fit(*FILES, "--run", "whole", *typed) == 0
    Path("fail").write_text(json.dumps([hook, FAILURES[hook]]))
    assert project.fit(*FILES, "--run", "parts", *typed) == 1
    saved = Path("failed/on_exception.ckpt")
    assert torch.load(saved, weights_only=True)["global_step"] == 2 + (hook == "on_train_batch_end")
    assert project.fit("--ckpt_path", saved, "--run", "parts") == 0
    assert_same_run(project)


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["--trainer.sync_batchnorm=true"], "`trainer.sync_batchnorm` is true, but torch synchronises"),
        (callback("OnExceptionCheckpoint"), "has OnExceptionCheckpoint, but where one of several devices fails alone"),
    ],
)
def test_what_several_cpus_cannot_do_is_one_sentence(project_on_two, typed, words, capfd):
    assert project_on_two.fit(*FILES, *typed) == 2
    error = capfd.readouterr().err
    assert words in error and "Traceback" not in error and not Path("runs").exists()


# three runs for each of forty names
@pytest.mark.slow
@on_one_and_two(switches(1))
def test_a_switch_that_works_resumes(project, name, devices):
    project.write(devices)
    value, *others = switches(project.accumulation)[name]
    assert_resumes(project, f"--trainer.{name}={value}", *others)


# as above
@pytest.mark.slow
@on_one_and_two(CALLED)
def test_a_callback_that_works_resumes(project, name, devices):
    project.write(devices)
    assert_resumes(project, *callback(name, **arguments(project, name)))


# as above
@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed", "16-mixed", "32-true"])
def test_each_precision_resumes(project, precision):
    assert_resumes(project, f"--trainer.precision={precision}")
