"""What is recorded about a run of somebody else, whatever is in it, as `show` prints it."""

import json

import pytest
from hostile_names import NAME, runner

from lit_moe.cli import main as moe


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    return runner(tmp_path, monkeypatch, capfd)


def test_a_record_of_a_run(run, tmp_path):
    begun = {"start": "2026-01-01T00:00:00+00:00", "end": None, "exit": f"failed: {NAME}", "command": f"lit-moe {NAME}"}
    record = {"format": "litshift-record", "version": 1, "sessions": [begun], "config": {NAME: NAME}}
    for number in range(2):
        folder = tmp_path / f"run{number}"
        folder.mkdir()
        (folder / "run.json").write_text(json.dumps(record | {"versions": {NAME: str(number)}}))
    run(moe, "show", "run0")
    run(moe, "show", "run0", "--json")
    run(moe, "show", "run0", "run1")
