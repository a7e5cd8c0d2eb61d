"""What a run logs can be monitored, by checkpoints and early stopping; what it does not log is refused at once."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from switch_runs import FILES, PROJECTS, callback

pytestmark = pytest.mark.filterwarnings("ignore")
#: The callbacks of each package that log, by class name and arguments.
LOGGING = {
    "moe": {"lit_moe.Forgetting": {"old": ["austen"], "new": ["stdlib"]}},
    "valuation": {"lit_valuation.GradientMatching": {"budget": 20}},
    "detect": {
        "lit_detect.RobustnessMonitor": {"attacks": ["Homoglyph"]},
        "lit_detect.AdversarialTraining": {"attacks": ["UpperLower"]},
    },
}


@pytest.fixture(params=PROJECTS)
def project(request, tmp_path, monkeypatch, token_root):
    monkeypatch.chdir(tmp_path)
    project = PROJECTS[request.param]
    project = replace(project, root=project.prepare(tmp_path) if project.prepare else token_root)
    project.write()
    settings = yaml.safe_load(Path("tiny.yaml").read_text())
    settings["trainer"]["callbacks"] = [  # the witness is of another project, which may log anything
        {"class_path": name, "init_args": arguments} for name, arguments in LOGGING[request.param].items()
    ]
    Path("tiny.yaml").write_text(yaml.safe_dump(settings))
    return project


# each key has a callback of both kinds: some seventy
SLOW = [name if name == "valuation" else pytest.param(name, marks=pytest.mark.slow) for name in PROJECTS]


@pytest.mark.parametrize("project", SLOW, indirect=True)
def test_every_key_that_a_run_logs_can_be_monitored(project, capsys):
    assert project.fit(*FILES, "--run", "keys") == 0, capsys.readouterr().err
    keys = {key for row in project.rows("keys", clock=True) for key in row} - {"step", "epoch"}
    assert len({key.split("/")[0] for key in keys}) == 2 and len(keys) > 10
    watching = []
    for number, key in enumerate(sorted(keys)):
        kept = {"monitor": key, "filename": str(number), "dirpath": "kept", "every_n_train_steps": 2}
        watching += [("ModelCheckpoint", kept), ("EarlyStopping", {"monitor": key, "check_finite": False})]
    added = [{"class_path": f"lightning.pytorch.callbacks.{name}", "init_args": init} for name, init in watching]
    Path("watching.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks+": added}}))
    assert project.fit(*FILES, "--config", "watching.yaml", "--run", "watched") == 0, capsys.readouterr().err
    states = project.checkpoint("watched")["callbacks"]
    for key in keys:
        (kept,) = (state for name, state in states.items() if "ModelCheckpoint" in name and state.get("monitor") == key)
        assert kept["best_model_score"] is not None, key
        (stopping,) = (
            state for name, state in states.items() if name.startswith("EarlyStopping") and f"'{key}'" in name
        )
        assert torch.isfinite(torch.as_tensor(stopping["best_score"])) or stopping["wait_count"], key


FIRST = "ModelCheckpoint"


@pytest.mark.parametrize("name", [FIRST, "EarlyStopping"])
def test_a_mistyped_key_is_one_sentence_before_the_run(project, name, capsys):
    near = [project.monitored[:-1], *(["train/los", project.monitored.replace("/", "_")] if name == FIRST else [])]
    for typed in near:
        assert project.fit(*FILES, "--run", "mistyped", *callback(name, monitor=typed)) == 2
        error = capsys.readouterr().err
        assert f"`monitor` of {name} is {typed}, which this run does not log; it logs " in error
        assert ("train/loss" if "train" in typed else project.monitored) in error and "Traceback" not in error
        assert not Path("runs").exists()


def test_an_early_stopping_that_never_looks_is_told(project, capsys):
    never = ["--trainer.limit_val_batches=0"]
    assert project.fit(*FILES, *never, *callback("EarlyStopping", monitor="train/loss")) == 2
    assert "EarlyStopping looks at its key after each validation, but this run has none" in capsys.readouterr().err
    assert project.fit(*FILES, *never, *callback("EarlyStopping", monitor=project.monitored)) == 2
    assert f"is {project.monitored}, which this run does not log" in capsys.readouterr().err
    (added,) = callback("EarlyStopping", monitor=project.monitored)
    alone = added.replace("+=", "=[") + "]"  # Forgetting validates before the first step
    late = ["--trainer.max_steps=1", alone, *(["--data.init_args.replay=null"] if project.package == "moe" else [])]
    with pytest.warns(UserWarning, match=f"EarlyStopping has never seen a value of {project.monitored}"):
        assert project.fit(*FILES, *late) == 0
