"""`lit-moe fit`, killed at any moment and resumed from its last checkpoint, is the run that was never killed."""

import random
import time
from functools import cache
from pathlib import Path

import pytest
import torch
from fit_run import (
    WALL_CLOCK,
    assert_close_rows,
    assert_close_weights,
    checkpoint,
    finish,
    kill,
    last_step,
    layout,
    rows,
    start,
    witnessed,
    write_config,
)
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

EVERY, CHECK = 4, 12  # optimizer steps from checkpoint to checkpoint and from validation to validation
LAST = Path("runs/moe/killed/checkpoints/last.ckpt")


class Scenario:
    """Runs one configuration, once through and once with kills, in the working directory."""

    def __init__(self, root, steps, seed):
        self.steps, self.chance = steps, random.Random(seed)
        write_config(root, steps=steps, every=EVERY, length=16)

    def start(self, name, session, flags):
        begin = (
            ["--ckpt_path", LAST] if name == "killed" and LAST.exists() else ["--config", "tiny.yaml", "--run", name]
        )
        folder = Path("runs/moe/killed")
        if name == "killed" and not LAST.exists() and folder.exists():
            folder.rename(f"without-checkpoint-{session}")  # killed before there was anything to resume
        return start("fit", *begin, *flags, session=session, log=f"{name}.log")

    def whole(self, devices=1, micro=2):
        process = self.start("whole", 0, layout(devices, micro, check_every=CHECK))
        assert finish(process, 600, "whole.log") == 0, Path("whole.log").read_text()[-3000:]
        for file in Path().glob("witness.[0-9]"):
            file.rename(f"whole{file.suffix}")

    def killed(self, layouts):
        """Kill in each layout but the last."""
        for session, (devices, micro, workers) in enumerate(layouts):
            process = self.start("killed", session, layout(devices, micro, workers, CHECK))
            if session == len(layouts) - 1:
                assert finish(process, 600, "killed.log") == 0, Path("killed.log").read_text()[-3000:]
                return
            self.wait(process, session, len(layouts))
            assert process.poll() is None, f"session {session}: " + Path("killed.log").read_text()[-3000:]
            kill(process)
            self.look()

    def wait(self, process, session, sessions):
        """Wait for a random moment: of the start-up in each third session, of the training in the others."""
        if session % 3 == 2:
            end = time.monotonic() + self.chance.uniform(2, 14)
            while time.monotonic() < end and last_step() < self.steps - 20:
                time.sleep(0.01)
            return
        begin = max(last_step(), 0)
        goal = begin + self.chance.randrange(2, max(4, 2 * (self.steps - 20 - begin) // (sessions - session)))
        goal, end = min(goal, self.steps - 20), time.monotonic() + 300
        while process.poll() is None and (last_step() < goal or not LAST.exists()):
            assert time.monotonic() < end, Path("killed.log").read_text()[-3000:]
            time.sleep(0.002)
        time.sleep(self.chance.uniform(0, 0.3))

    def look(self):
        """Check what a kill leaves: checkpoints that load, and few torn files."""
        for path in LAST.parent.glob("*.ckpt"):
            assert torch.load(path, weights_only=True)["global_step"] >= EVERY
        assert len(list(LAST.parent.glob("*.ckpt"))) <= 3
        assert len(torn_files()) <= 4


def torn_files():
    return list(Path("runs/moe/killed").rglob("*.tmp"))


@cache
def attempts(path):
    """Return the micro-batches of each attempt at a step in order, by (session, step) and rank."""
    found = {}
    for rank, row in witnessed(path):
        ranks = found.setdefault((row["session"], row["step"]), {})
        ranks.setdefault(rank, []).append([row["ids"], row["tokens"], row["epoch"], row["batch_idx"]])
    return found


def assert_same_samples(steps, exact):
    """Check that each attempt at a step trains on what the run never killed trained on, and one on all of it."""
    expected = {step: ranks for (_, step), ranks in attempts("whole").items()}
    found = attempts("witness")
    assert expected.keys() == set(range(steps))
    done = set()
    for (_, step), ranks in found.items():
        if exact:
            for rank, batches in ranks.items():
                assert batches == expected[step][rank][: len(batches)], (step, rank)
            done |= {step} if ranks == expected[step] else set()
        else:
            mine, theirs = flat(ranks), flat(expected[step])
            assert mine <= theirs, step
            done |= {step} if mine == theirs else set()
    assert done == expected.keys()
    assert sum(len(batches) for ranks in found.values() for batches in ranks.values()) > steps  # some of it twice


def flat(ranks):
    batches = [batch for of_rank in ranks.values() for batch in of_rank]
    return {(*sample, epoch) for ids, tokens, epoch, _ in batches for sample in zip(ids, tokens, strict=True)}


def events(name):
    """Return what TensorBoard shows: steps and values by tag, without values of the clock or of pictures."""
    shown = EventAccumulator(f"runs/moe/{name}", size_guidance={"scalars": 0, "images": 0, "tensors": 0}).Reload()
    values = {tag: [(event.step, event.value) for event in shown.Scalars(tag)] for tag in shown.Tags()["scalars"]}
    for tag in (*WALL_CLOCK, *shown.Tags()["images"]):
        values[tag] = [event.step for event in (shown.Scalars if tag in values else shown.Images)(tag)]
    return values


def equal(mine, theirs, where="checkpoint"):
    if where.endswith("/zero_grad"):
        return  # how often Lightning zeroed gradients; it does so once more after some resumes
    if isinstance(theirs, dict):
        assert mine.keys() == theirs.keys(), where
        for key, value in theirs.items():
            equal(mine[key], value, f"{where}/{key}")
    elif isinstance(theirs, list | tuple):
        assert len(mine) == len(theirs), where
        for number, value in enumerate(theirs):
            equal(mine[number], value, f"{where}/{number}")
    else:
        same = torch.equal(mine, theirs) if isinstance(theirs, torch.Tensor) else mine == theirs
        assert same, (where, mine, theirs)


STATE = ("state_dict", "optimizer_states", "lr_schedulers", "loops", "training_meter", "global_step", "epoch")


def compare(scenario, layouts, whole):
    scenario.whole(*whole)
    scenario.killed(layouts)
    exact = {session[:2] for session in layouts} == {whole}
    attempts.cache_clear()
    assert_same_samples(scenario.steps, exact)
    mine, theirs = checkpoint("killed"), checkpoint("whole")
    if exact:
        assert rows("killed") == rows("whole")
        equal({key: mine[key] for key in STATE}, {key: theirs[key] for key in STATE})
        for name in ("ResumeStream", "Forgetting"):
            equal(mine["callbacks"][name], theirs["callbacks"][name], name)
        assert events("killed") == events("whole")
    else:
        assert_close_rows(rows("killed"), rows("whole"))
        assert_close_weights(mine, theirs)
        assert mine["callbacks"]["ResumeStream"]["consumed"] == theirs["callbacks"]["ResumeStream"]["consumed"]
    assert not torn_files()
    assert [path.name for path in Path("runs/moe").iterdir() if path.name not in ("whole", "killed")] == []
    assert {path.name for path in LAST.parent.iterdir()} == {"last.ckpt", f"step={scenario.steps}.ckpt"}


def test_two_kills(token_root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    compare(Scenario(token_root, 36, "two"), [(1, 2, 0), (1, 2, 2), (1, 2, 0)], (1, 2))


#: Devices, micro-batch size and workers of each session; the global batch is 8, an epoch 29 steps. 22 kills.
KILLS = {
    "accumulation of 4, other workers": ((1, 2), [(1, 2, (0, 2, 1)[number % 3]) for number in range(9)]),
    "no accumulation": ((1, 8), [(1, 8, (2, 0)[number % 2]) for number in range(6)]),
    "two devices": ((2, 2), [(2, 2, (0, 2)[number % 2]) for number in range(5)]),
    "one device and two": ((1, 2), [(1 + number % 2, 2, (0, 1)[number % 2]) for number in range(6)]),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", KILLS)
def test_kills(token_root, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    whole, layouts = KILLS[name]
    compare(Scenario(token_root, 90, name), layouts, whole)
