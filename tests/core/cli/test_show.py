"""What a run did can be told afterwards, from its folder and from its checkpoints."""

import hashlib
import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import Callback
from small_cli import main

from lit_core import record
from lit_core.cli.arguments import paths_as_flags
from lit_core.cli.show import facts_of
from lit_core.errors import UserError

FIT = ["fit", "--model", "SmallModel", "--data", "SmallData", "--trainer.accelerator", "cpu", "--trainer.max_steps"]
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.limit_val_batches=0"]


class AtStep(Callback):
    """Does something to its own process at the end of step 2: sends it a signal, or ends it at once.

    Args:
        signum: The signal; 0 ends the process.
    """

    def __init__(self, signum: int):
        self.signum = signum

    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == 2:
            os.kill(os.getpid(), self.signum or signal.SIGKILL)


@pytest.fixture(autouse=True)
def in_empty_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return tmp_path_factory.mktemp("made")


@pytest.fixture
def runs(made, in_empty_folder):
    """A run, a branch of it, and a resumed branch of that; made once."""
    if not (made / "runs").exists():
        fit("2", "--run", "a")
        fit("3", "--run", "b", "--branch_from", last("a"), "--model.shape.width", "5")
        fit("2", "--run", "c", "--branch_from", last("b"), "--seed_everything", "7")
        assert main(["fit", "--ckpt_path", last("c"), "--trainer.max_steps", "4"]) == 0
        assert main(["test", "--ckpt_path", last("c"), "--trainer.enable_progress_bar=false"]) == 0
        shutil.copytree("runs", made / "runs")
    else:
        shutil.copytree(made / "runs", "runs")


def fit(steps, *args, code=0):
    assert main([*FIT, steps, *QUIET, *args]) == code


def last(run):
    return f"runs/small/{run}/checkpoints/last.ckpt"


def shown(*args, capsys, code=0):
    capsys.readouterr()
    assert main(["show", *args]) == code
    return capsys.readouterr().out


def digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def test_a_branch_of_a_branch_names_all_it_comes_from(runs, capsys):
    facts = json.loads(shown("runs/small/c", "--json", capsys=capsys))
    parent = facts["parent"]
    assert (parent["path"], parent["step"], parent["sha256"]) == (last("b"), 3, digest(last("b")))
    grandparent = parent["parent"]
    assert (grandparent["path"], grandparent["step"], grandparent["sha256"]) == (last("a"), 2, digest(last("a")))
    assert grandparent["parent"] is None
    assert grandparent["sessions"][0]["command"].startswith("lit-small fit --model SmallModel")
    text = shown("runs/small/c", capsys=capsys)
    assert f"\nParent       {last('b')} at step 3, sha256 {digest(last('b'))[:12]}\n" in text
    assert f"\n  its parent {last('a')} at step 2, sha256 {digest(last('a'))[:12]}\n" in text
    assert text.splitlines()[1] == "Outcome      finished at step 4"


def test_the_history_has_each_command_with_its_steps(runs, capsys):
    facts = facts_of(Path("runs/small/c"))
    first, second = facts["sessions"]
    assert [(one["from_step"], one["step"], one["exit"]) for one in (first, second)] == [
        *((0, 2, "finished"), (2, 4, "finished"))
    ]
    assert second["command"] == f"lit-small fit --ckpt_path {last('c')} --trainer.max_steps 4"
    assert first["start"] <= first["end"] <= second["start"] <= second["end"]
    assert [one["command"] for one in facts["evaluations"]] == [
        f"lit-small test --ckpt_path {last('c')} --trainer.enable_progress_bar=false"
    ]
    tested = facts_of(Path("runs/small/c/config.test.yaml"))
    assert tested["inputs"] == [{"path": last("c"), "step": 4, "sha256": digest(last("c"))}]


def test_config_seeds_devices_and_versions_are_recorded(runs):
    facts = facts_of(Path("runs/small/b"))
    assert facts["config"] == record.plain(yaml.safe_load(Path("runs/small/b/config.yaml").read_text()))
    assert facts["resolved"]["model"]["init_args"]["shape"] == {"vocab": 7, "width": 5}
    assert facts["seeds"] == {"seed_everything": 0}
    assert facts_of(Path("runs/small/c"))["seeds"] == {"seed_everything": 7}
    assert facts["devices"]["devices"] == 1 and facts["devices"]["strategy"] == "SingleDeviceStrategy"
    assert facts["versions"]["torch"] == torch.__version__
    assert {"lit-shift", "commit", "python", "lightning", "transformers", "cuda"} <= facts["versions"].keys()


def test_a_checkpoint_alone_tells_the_same(runs, capsys):
    (ckpt,) = [Path(last("c")).rename("alone.ckpt")]
    folder, alone = facts_of(Path("runs/small/c/run.json")), facts_of(ckpt)
    assert alone["step"] == 4 and alone["sessions"][0] == folder["sessions"][0]
    for key in ("config", "resolved", "seeds", "inputs", "parent", "versions", "devices"):
        assert alone[key] == folder[key]
    assert "Outcome      saved at step 4" in shown("alone.ckpt", capsys=capsys)


def test_what_differs_between_two_runs(runs, capsys):
    differ = json.loads(shown("runs/small/a", "runs/small/b", "--json", capsys=capsys))
    assert differ.keys() == {
        *("outcome", "command", "parent.path", "parent.step", "parent.sha256"),
        *("trainer.max_steps", "model.init_args.shape.width"),
    }
    assert differ["model.init_args.shape.width"] == ["4", "5"]
    lines = shown("runs/small/a", "runs/small/b", capsys=capsys).splitlines()
    assert lines[0].split() == ["runs/small/a", "runs/small/b"]
    assert "model.init_args.shape.width  4" in "\n".join(lines)
    assert shown("runs/small/a", "runs/small/a", capsys=capsys) == "Nothing differs, except times.\n"


@pytest.mark.parametrize(
    ("args", "code", "told"),
    [
        (["--model.nan_at", "1"], 1, "failed at step 1: The loss"),
        (["--trainer.callbacks+", f"{__name__}.AtStep", "--trainer.callbacks.signum", "15"], 143, "stopped by SIGTERM"),
        (["--trainer.callbacks+", f"{__name__}.AtStep", "--trainer.callbacks.signum", "2"], 130, "stopped by SIGINT"),
    ],
    ids=["failed", "terminated", "interrupted"],
)
def test_how_a_run_ended(args, code, told, capsys):
    fit("4", "--run", "x", *args, code=code)
    assert told in shown("runs/small/x", capsys=capsys).splitlines()[1]


def test_a_folder_of_evaluations_alone_is_shown(runs, capsys):
    for command in ("validate", "test"):
        assert main([command, "--ckpt_path", last("a"), "--run", "alone", "--trainer.enable_progress_bar=false"]) == 0
    assert sorted(path.name for path in Path("runs/small/alone").glob("run*.json")) == [
        "run.test.json",
        "run.validate.json",
    ]
    text = shown("runs/small/alone", capsys=capsys)
    assert "Outcome      finished" in text and "Command      lit-small test --ckpt_path" in text
    assert "Evaluated " in text and "lit-small validate" in text
    assert facts_of("runs/small/alone/run.validate.json")["sessions"][0]["command"].startswith("lit-small validate")


def test_a_killed_run_has_no_end_and_a_resume_keeps_its_history(capsys):
    kill = ["--trainer.callbacks+", f"{__name__}.AtStep", "--trainer.callbacks.signum", "0"]
    save = ["--trainer.callbacks+", "lit_core.callbacks.RunCheckpoint", "--trainer.callbacks.every_n_train_steps", "1"]
    child = os.fork()
    if child == 0:
        main([*FIT, "4", *QUIET, "--run", "x", *kill, *save])
        os._exit(0)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert "not ended" in (text := shown("runs/small/x", capsys=capsys)) and "checkpoint is at step 1" in text
    assert main(["fit", "--ckpt_path", last("x"), "--trainer.callbacks", "null"]) == 0
    killed, resumed = facts_of(Path("runs/small/x"))["sessions"]
    assert (killed["end"], killed["exit"], killed["step"]) == (None, None, None)
    assert (resumed["from_step"], resumed["step"], resumed["exit"]) == (1, 4, "finished")


def test_a_resume_in_another_folder_keeps_the_history(runs):
    assert main(["fit", "--ckpt_path", last("b"), "--run", "d", "--trainer.max_steps", "4"]) == 0
    facts = facts_of("runs/small/d")
    assert [(one["from_step"], one["step"], one["exit"]) for one in facts["sessions"]] == [
        *((0, 3, "finished"), (3, 4, "finished"))
    ]
    assert facts["parent"]["path"] == last("a") and len(facts_of("runs/small/b")["sessions"]) == 1


def test_a_run_of_before_is_shown_by_its_config(runs, capsys):
    Path("runs/small/a/run.json").unlink()
    saved = torch.load(last("a"), weights_only=True)
    del saved["record"]
    torch.save(saved, last("a"))
    for path in ("runs/small/a", last("a")):
        text = shown(path, capsys=capsys)
        assert "before runs kept a record" in text and "model.init_args.shape.width" in text


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ([], "show takes one or two paths, but got 0"),
        (["a", "b", "c"], "show takes one or two paths, but got 3"),
        (["nothing"], "paths names nothing, which does not exist"),
        (["notes.txt"], "Nothing is recorded about notes.txt"),
    ],
)
def test_what_cannot_be_shown(args, sentence, capsys):
    Path("notes.txt").write_text("notes")
    assert main(["show", *args]) == 2
    assert sentence in capsys.readouterr().err


def test_an_output_of_a_verb_is_shown_by_the_record_beside_or_inside_it(capsys):
    Path("out.jsonl").write_text("{}\n")
    Path("folder").mkdir()
    (Path("folder") / "table.csv").write_text("a\n")
    for output in (Path("out.jsonl"), Path("folder")):
        record.write_record(output)
    Path("own.json").write_text(json.dumps({"format": "litshift-calibration", "version": 1, "record": facts("x")}))
    entry = {"event": "query", "counterparty": "alice", "samples": {}, "notes": {"record": facts("x")}}
    Path("ledger.jsonl").write_text(json.dumps(entry) + "\n")
    for path in ("out.jsonl", "out.jsonl.run.json", "folder", "folder/table.csv", "own.json", "ledger.jsonl"):
        assert "Outcome      finished" in shown(path, capsys=capsys)
    assert "counterparty: alice" in shown("ledger.jsonl", capsys=capsys)


def facts(path):
    return record.new_record(inputs=[{"path": path}])


def test_prepared_data_are_shown_by_their_settings(capsys):
    for name in ("a", "b"):
        Path("root", name).mkdir(parents=True)
        Path("root", name, "prepare.json").write_text(json.dumps({"version": "0.1.0", "settings": {"seed": 3}}))
    assert "a.settings.seed: 3" in shown("root", capsys=capsys)
    assert "settings.seed: 3" in shown("root/a", capsys=capsys)


def test_paths_stand_anywhere():
    assert paths_as_flags(["--json", "a", "b"]) == ["--json=true", "--paths+=a", "--paths+=b"]
    assert paths_as_flags(["a", "--json", "false"]) == ["--paths+=a", "--json", "false"]


def test_a_newer_record_is_refused(runs):
    path = Path("runs/small/a/run.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 9}))
    with pytest.raises(UserError, match=r"run.json is of version 9 of litshift-record.*newer LitShift"):
        facts_of(path)
