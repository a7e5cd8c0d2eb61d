"""A run killed at any moment and resumed is the run that was never killed."""

import json
import os
import random
import signal
import subprocess
import time

import pytest
import tiny_run
import torch

STEPS, EVERY = 240, 5
LAYOUTS = {
    "one device, accumulation 2": {"micro": 2},
    "one device, accumulation 1": {"micro": 4},
    "two devices, accumulation 2": {"devices": 2, "micro": 1},
}


def rows_of(out):
    """Read what was trained on; the last line may be torn by a kill."""
    rows = []
    for path in sorted(out.glob("rows.*")):
        for line in path.read_text().splitlines(keepends=True):
            if line.endswith("}\n"):
                rows.append((path.suffix, json.loads(line)))
    return rows


def last_step(out):
    return max((row["step"] for _, row in rows_of(out)), default=-1)


def run(data, out, **options):
    checkpoint = {"ckpt_path": out / "last.ckpt"} if (out / "last.ckpt").exists() else {}
    arguments = tiny_run.command(data, out, steps=STEPS, every=EVERY, **options, **checkpoint)
    log = (out.parent / f"{out.name}.log").open("a")
    return subprocess.Popen(**arguments, stdout=log, stderr=log, start_new_session=True)


def kill(process):
    os.killpg(process.pid, signal.SIGKILL)  # the processes of all ranks and all workers
    process.wait()


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
def test_seven_kills(tmp_path, layout):
    options, chance = LAYOUTS[layout], random.Random(layout)
    data, whole, killed = tiny_run.prepare(tmp_path / "data"), tmp_path / "whole", tmp_path / "killed"
    assert run(data, whole, **options).wait(600) == 0, (tmp_path / "whole.log").read_text()[-3000:]

    for number in range(7):
        process = run(data, killed, workers=(0, 2, 1)[number % 3], **options)
        begin, goal = last_step(killed), last_step(killed) + chance.randrange(1, 40)
        moment = None
        while process.poll() is None and (moment is None or time.monotonic() < moment):
            time.sleep(0.002)
            if moment is not None and last_step(killed) >= min(begin + 3 * EVERY if number == 3 else STEPS, STEPS - 10):
                break  # a start may be quicker than the kill
            if moment is None and (number == 3 or last_step(killed) >= min(goal, STEPS - 10)):
                # one kill anywhere between the start of the process and its first checkpoints
                moment = time.monotonic() + chance.uniform(0, 10 if number == 3 else 0.3)
        assert process.poll() is None, (
            f"kill {number} from step {begin}: " + (tmp_path / "killed.log").read_text()[-3000:]
        )
        kill(process)
        assert not list(killed.glob("*.ckpt")) or torch.load(killed / "last.ckpt", weights_only=True)

    assert run(data, killed, workers=2, **options).wait(600) == 0, (tmp_path / "killed.log").read_text()[-3000:]
    expected = {(rank, row["step"], row["batch_idx"], row["epoch"]): row for rank, row in rows_of(whole)}
    found = rows_of(killed)
    assert len(found) > len(expected)  # steps after a checkpoint were trained on more than once
    for rank, row in found:
        assert row == expected[rank, row["step"], row["batch_idx"], row["epoch"]]
    assert {(rank, row["step"], row["batch_idx"], row["epoch"]) for rank, row in found} == expected.keys()
    mine, theirs = (torch.load(out / "final.pt", weights_only=True) for out in (killed, whole))
    for name, weight in theirs["weights"].items():
        assert torch.equal(mine["weights"][name], weight), name
    for number, state in theirs["moments"].items():
        for name, value in state.items():
            assert torch.equal(mine["moments"][number][name], value), (number, name)
