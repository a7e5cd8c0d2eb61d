"""Runs that fail through no mistake end in one sentence too, and lose nothing; whatever is damaged is named."""

import os
import resource
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import yaml
from bad_input import FIT, GENERATE, LAST, MAKE, RESUME, RUN, edited, inside, listing, poisoned, refused, said, write
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_core.data import ShardSet, TokenWindows
from lit_core.errors import RunFailure, UserError
from lit_moe.cli import main

# Runs that fail


def test_a_loss_that_is_no_number_at_once_leaves_all_as_it_was(place):
    poisoned()
    refused(place, RESUME, 1, "The loss became nan at step 2")


def test_a_loss_that_is_no_number_later_keeps_the_last_checkpoint(place):
    config = edited(RUN, "model.init_args.optimizer.init_args.lr", 1e30)
    saves = {"class_path": "lit_core.callbacks.RunCheckpoint", "init_args": {"every_n_train_steps": 1}}
    config["trainer"] |= {"callbacks": [*config["trainer"]["callbacks"], saves], "max_steps": 9}
    write("run.yaml", config)
    before = listing(place)
    code, lines = said([*FIT, "--trainer.val_check_interval", "9"])
    assert code == 1 and "The loss became" in lines[0]
    assert "resume with: lit-moe fit --ckpt_path runs/moe/x/checkpoints/last.ckpt" in lines[1]
    after = listing(place)
    assert {path: after.get(path) for path in before} == before
    assert all(path.startswith("work/runs/moe/x") for path in after.keys() - before.keys())
    step = torch.load("runs/moe/x/checkpoints/last.ckpt", weights_only=True)["global_step"]
    assert step >= 1 and f"at step {step};" in lines[0]


@contextmanager
def files_of_at_most(size):
    """Let each write beyond a size fail as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_at_a_checkpoint_keeps_the_former_one(place):
    before = listing(place)
    with files_of_at_most(Path(LAST).stat().st_size // 2):
        code, lines = said(RESUME)
    assert code == 1 and "The disk is full" in lines[0] and "last.ckpt" in lines[0]
    assert f"resume with: lit-moe fit --ckpt_path {LAST}" in lines[1]
    after = listing(place)
    grown = {f"work/runs/moe/first/{name}" for name in ("metrics.csv", "config.yaml", "hparams.yaml", "run.json")}
    assert {path for path in before if after.get(path) != before[path]} <= grown
    assert all("first/events.out.tfevents" in path for path in after.keys() - before.keys())
    assert main(RESUME) == 0  # and with room, it goes on


@pytest.mark.parametrize("size", [30_000, 70_000], ids=["text", "shard"])
def test_a_full_disk_in_prepare_leaves_nothing(place, size):
    with files_of_at_most(size):
        refused(place, MAKE, 1, "The disk is full")
    assert main(MAKE) == 0


def test_a_full_disk_in_generate_leaves_nothing(place):
    with files_of_at_most(10):
        refused(place, [*GENERATE, "--output", "x.jsonl"], 1, "The disk is full: x.jsonl")
    assert main([*GENERATE, "--output", "x.jsonl"]) == 0


def test_folders_that_may_not_be_written(place):
    folders = [place, *(path for path in place.rglob("*") if path.is_dir())]
    try:
        for folder in folders:
            folder.chmod(0o555)
        with as_nobody():
            refused(place, FIT, 2, "runs/moe/x cannot be used (Permission denied)")
            refused(place, [*GENERATE, "--output", "x.jsonl"], 2, "nothing can be written there (Permission denied)")
            refused(place, MAKE, 2, "data/new, but nothing can be written there (Permission denied)")
    finally:
        for folder in folders:
            folder.chmod(0o755)


@contextmanager
def as_nobody():
    """Give up the right to write anywhere, where the tests run as root."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


# Whatever else


def keys_of(node, path=()):
    """Return the path of each key of a config that a user may have typed wrongly."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        if isinstance(key, str):
            yield ".".join(map(str, (*path, key)))
        yield from keys_of(value, (*path, key))


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(
    key=st.sampled_from(sorted(keys_of(RUN))),
    kind=st.sampled_from(["drop", "rename", "type"]),
    place_=st.integers(0, 99),
)
def test_a_config_with_one_mistake_is_refused_in_one_sentence(pristine, key, kind, place_):
    before = listing(pristine)
    with inside(pristine):
        parent, _, last = key.rpartition(".")
        value = RUN
        for part in key.split("."):
            value = value[int(part) if part.isdigit() else part]
        if kind == "drop":
            config = edited(RUN, key, None)
        elif kind == "type":
            config = edited(RUN, key, 3 if isinstance(value, dict | list) else {"neither": ["this", "nor that"]})
        else:
            cut = place_ % len(last)
            renamed = last[:cut] + "q" + last[cut + 1 :]
            config = edited(edited(RUN, key, None), f"{parent}.{renamed}".lstrip("."), value)
        write("mutated.yaml", config)
        try:
            code, lines = said(["fit", "--config", "mutated.yaml", "--run", "y", "--trainer.max_steps", "0"])
            if code == 0:
                assert kind == "drop"
            else:
                assert code == 2 and len(lines) == 1 and len(lines[0]) < 1000, lines
        finally:
            Path("mutated.yaml").unlink()
            if code == 0:
                shutil.rmtree("runs/moe/y")
    assert listing(pristine) == before


def read_everything(folder, verify):
    windows = TokenWindows(folder, 16, tail=True, document_mask=True, verify=verify)
    windows.batch(range(len(windows)))
    shards = ShardSet(folder, verify)
    return [shards[number] for number in range(len(shards))]


@pytest.mark.parametrize("name", ["000000.tar", "index.json"])
@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(
    where=st.one_of(st.floats(0, 0.05), st.floats(0, 1, exclude_max=True)),
    change=st.one_of(st.integers(1, 255), st.none()),
    verify=st.booleans(),
)
def test_damage_is_named_by_file(pristine, name, where, change, verify):
    source = pristine / "data" / "tokens" / "stdlib" / "val"
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(source, folder, dirs_exist_ok=True)
        path = Path(folder, name)
        content = bytearray(path.read_bytes())
        place = int(where * len(content))
        if change is None:
            content = content[:place]
        else:
            content[place] ^= change
        path.write_bytes(content)
        try:
            read_everything(Path(folder), verify)
        except (UserError, RunFailure) as error:
            assert folder in str(error) and "\n" not in str(error)
        else:
            assert change is not None
            assert not (verify and name == "000000.tar")


def test_a_null_that_was_given_is_kept_for_the_resume(place):
    config = torch.load(LAST, weights_only=True)["config"]
    assert config["trainer"]["check_val_every_n_epoch"] is None
    assert config == yaml.safe_load(Path("runs/moe/first/config.yaml").read_text())
