"""What is in the folder that a run is given stays, unless a command of ours wrote it."""

import json
import shutil
from pathlib import Path

import pytest
from small_cli import main
from test_cli import FIT, LAST, in_empty_folder  # noqa: F401

FOLDER = Path("runs/small/first")
#: What fit would replace, remove or append to, by the commands that would.
OF_OTHERS = {
    "run.json": "fit",
    "metrics.csv": "fit test",
    "hparams.yaml": "fit",
    "checkpoints/last.ckpt": "fit",
    "run.test.json": "test",
}
FILES = [(name, command) for name, commands in OF_OTHERS.items() for command in commands.split()]


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("name", "command"), FILES)
def test_files_that_no_run_wrote_stay(name, command, capsys):
    rest = {"fit": FIT, "test": ["test", *FIT[1:]]}[command]
    path, events = FOLDER / name, FOLDER / "events.out.tfevents.1.host.2.0"
    path.parent.mkdir(parents=True)
    for own in (path, events):
        own.write_text("epoch,accuracy\n1,0.5\n")
    before = contents(FOLDER)
    assert main([*rest, "--run", "first"]) == 2
    assert name in capsys.readouterr().err and contents(FOLDER) == before
    path.unlink()
    (FOLDER / "checkpoints").exists() and (FOLDER / "checkpoints").rmdir()
    assert main([*rest, "--run", "first"]) == 0
    assert events.read_text() == "epoch,accuracy\n1,0.5\n"


def test_a_fit_that_was_killed_before_its_config_begins_anew():
    (FOLDER / "checkpoints").mkdir(parents=True)
    for name in ("events.out.tfevents.1.host.2.0", "hparams.yaml", "metrics.csv"):
        (FOLDER / name).write_text("step\n")
    assert main([*FIT, "--run", "first"]) == 0
    assert len(list(FOLDER.glob("events*"))) == 1 and Path(LAST).is_file()
    assert json.loads((FOLDER / "run.json").read_text())["sessions"][0]["exit"] == "finished"


def test_a_fit_that_was_ended_between_its_record_and_its_config_begins_anew():
    assert main([*FIT, "--run", "first"]) == 0
    record = json.loads((FOLDER / "run.json").read_text())
    record["sessions"][0]["exit"] = "failed"
    (FOLDER / "run.json").write_text(json.dumps(record))
    (FOLDER / "config.yaml").unlink()
    shutil.rmtree(FOLDER / "checkpoints")
    assert main([*FIT, "--run", "first"]) == 0
    assert Path(LAST).is_file() and (FOLDER / "config.yaml").is_file()
