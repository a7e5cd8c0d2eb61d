"""A ranking that is killed goes on where it was, and ends as one that never was."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

from crossing import checkpoint, files

from lit_valuation.cli import main


def table(folder):
    with (folder / "ranking.csv").open() as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def outcomes(folder):
    return {path.name: json.loads(path.read_bytes())["scores"] for path in folder.glob("trainings/*.json")}


def test_a_killed_ranking_ends_as_one_that_never_was(place, monkeypatch):
    monkeypatch.chdir(place)
    rank = ["rank", "--query", "query", "--answers", '{"alice": "answer_1", "bob": "answer_5"}', "--seeds", "3"]
    rank += ["--ckpt_path", checkpoint(place), "--data", "data/trainer"]
    before = files(place / "data")

    killed = place / "killed"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "lit_valuation", *rank, "--output", str(killed)]
    process = subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 100
    while len(list(killed.glob("trainings/*.json"))) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    kept = {path: path.stat().st_mtime_ns for path in killed.glob("trainings/*.json")}
    assert 2 <= len(kept) < 9 and {path.name for path in killed.iterdir()} == {"trainings"}  # no report of a part
    assert all(json.loads(path.read_bytes())["scores"].keys() >= {"held_out", "queries"} for path in kept)
    assert files(place / "data") == before  # nor a line in the ledger

    assert main([*rank, "--output", str(killed)]) == 0
    assert kept == {path: path.stat().st_mtime_ns for path in kept}
    assert main([*rank, "--output", str(place / "whole")]) == 0
    assert outcomes(killed) == outcomes(place / "whole") and len(outcomes(killed)) == 9
    assert table(killed) == table(place / "whole")
