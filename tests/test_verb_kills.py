"""Verbs killed at each of their file operations, and with a full disk there: the same command ends the same.

The fast set takes a few of the operations of each verb, ``make kills`` takes all.
"""

import json
import os
from importlib import import_module
from pathlib import Path

import kills
import pytest

WORDS = "It is a truth universally acknowledged that a single man in possession of a good fortune must want a wife"
SOURCE = {"class_path": "LitShiftJSONL", "init_args": {"path": "texts.jsonl", "name": "pairs"}}
CORPUS = {"class_path": "TextFolder", "init_args": {"folder": "texts", "name": "prose"}}
TABLE = {"class_path": "Table", "init_args": {"name": "t", "path": "table.csv", "label": "class"}}
DIVISION = {"train": 8, "val": 8, "test": 8, "evaluation_useful": 0.0, "hard": [], "owner_samples": 8}
DIVISION["owners"] = {"o": {"useful": 0.0}}
COMMANDS = {
    "moe-prepare": ["--root", "root", "--corpora", json.dumps([CORPUS]), "--tokenizer", "bytes", "--shard_bytes", "60"],
    "detect-prepare": ["--root", "root", "--sources", json.dumps([SOURCE])],
    "detect-attack": ["--attack", "Homoglyph", "--input", "texts.jsonl", "--output", "attacked.jsonl"],
    "valuation-prepare": ["--root", "root", "--source", json.dumps(TABLE), "--division", json.dumps(DIVISION)],
}
#: Files that tell when a command ran.
TIMED = ("run.json",)


def command(name):
    """Run a command in the working directory, which also has the data root."""
    os.environ["LITSHIFT_DATA"] = str(Path("data").absolute())
    package, verb = name.split("-")
    return import_module(f"lit_{package}.cli").main([verb, *COMMANDS[name]])


def begin(folder):
    """Write what the commands read."""
    (folder / "texts").mkdir(exist_ok=True)
    for number in range(6):
        (folder / "texts" / f"{number}.txt").write_text(f"{number} {WORDS}.")
    rows = [
        {"id": f"{n}", "text": f"{n} {WORDS}", "label": n % 2, "pair_id": f"{n // 2}", "source": "ab"[n % 2]}
        for n in range(24)
    ]
    (folder / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = [f"{n},{n * n % 7},{'ab'[n % 2]}" for n in range(60)]
    (folder / "table.csv").write_text("\n".join(["x,y,class", *lines, ""]))
    for path in folder.rglob("*"):
        os.utime(path, (0, 0))  # the records of what was prepared have the times of the files


def files(folder):
    return {name: None if name.endswith(TIMED) else content for name, content in kills.tree(folder).items()}


def walk(name, folder, full, step, first=1):
    """Compare what a command leaves that is repeated after it ended at some of its file operations; return how many."""
    whole = folder / "whole"
    whole.mkdir()
    begin(whole)
    assert kills.run(command, whole, name, log=folder / "log") == 0, (folder / "log").read_text()
    expected, count = files(whole), 0
    for at, here, code in kills.each_end(lambda: command(name), folder, begin, full, step, first):
        log = here.parent / "log"
        assert code == (1 if full else -9), (at, log.read_text())
        again = kills.run(command, here, name, log=log)
        assert again in (0, 2), (at, log.read_text())  # 2: it was done already, which is told and changes nothing
        assert files(here) == expected, (at, set(files(here)) ^ set(expected))
        count += 1
    return count


@pytest.mark.parametrize("full", [False, True], ids=["killed", "full"])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_verb_that_ends_at_some_file_operations_is_repeated_to_the_same_bytes(name, full, tmp_path):
    assert walk(name, tmp_path, full, step=61, first=11) > 0


@pytest.mark.slow  # hundreds of kills
@pytest.mark.parametrize("full", [False, True], ids=["killed", "full"])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_verb_that_ends_at_any_file_operation_is_repeated_to_the_same_bytes(name, full, tmp_path):
    assert walk(name, tmp_path, full, step=1) > 20
