"""The commands on weights that are divided over two processes."""

import os
import signal
import time
from pathlib import Path

import pytest
from fit_run import (
    assert_close_rows,
    assert_close_weights,
    checkpoint,
    finish,
    last_step,
    rows,
    run,
    start,
    write_config,
)

LAST = "runs/moe/{}/checkpoints/last.ckpt"
FOLDER = ["--trainer.strategy.init_args.checkpoint_folders", "true"]


@pytest.fixture(autouse=True)
def in_empty_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def layout(name, check_every=3):
    """Return the flags of a trainer's config; validation every so many optimizer steps."""
    devices = 1 if name == "cpu" else 2
    config = ["--config", f"configs/{'trainer' if name == 'cpu' else 'moe/trainer'}/{name}.yaml"]
    return [*config, f"--trainer.val_check_interval={check_every * 8 // (devices * 2)}"]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "flags"), [("fsdp2_cpu2", []), ("ep_cpu2", FOLDER)])
def test_a_divided_run_is_one(token_root, name, flags):
    """With replay, forgetting, text, validation, accumulation and clipping; stopped, resumed, then used by all else."""
    write_config(token_root)
    run("fit", "--config", "tiny.yaml", *layout("cpu"), "--run", "one")
    two = [*layout(name), *flags]
    run("fit", "--config", "tiny.yaml", *two, "--run", "two", "--trainer.max_steps", 4)
    run("fit", "--ckpt_path", LAST.format("two"), "--trainer.max_steps", 6)
    assert_close_rows(rows("two"), rows("one"))
    last = Path(LAST.format("two"))
    assert last.is_dir() == bool(flags)
    if flags:
        for command in (["test", "--ckpt_path", last], ["generate", "--ckpt_path", last]):
            run(*command, code=2, log="refused")
        run("fit", "--config", "tiny.yaml", "--branch_from", last, code=2, log="refused")
        said = [line for line in Path("refused").read_text().splitlines() if line.startswith("lit-moe: ")]
        assert len(said) == 3 and all("convert it to a file with the command `consolidate`" in line for line in said)
        run("consolidate", "--ckpt_path", last, "--output", last.with_name("file.ckpt"))
        last = last.with_name("file.ckpt")
    assert_close_weights(checkpoint("two", last.name), checkpoint("one"))
    for which, path in (("one", LAST.format("one")), ("two", last)):
        run("test", "--ckpt_path", path, "--run", f"test-{which}", "--trainer.accelerator", "cpu")
    assert_close_rows(rows("test-two"), rows("test-one"))
    run("generate", "--ckpt_path", last, "--prompt", "It", "--max_new_tokens", 3, "--output", "text.jsonl")
    run("fit", "--config", "tiny.yaml", *two, "--branch_from", last, "--run", "branch", "--trainer.max_steps", 1)


@pytest.mark.slow
def test_uneven_experts_are_refused_in_one_sentence(token_root):
    write_config(token_root)
    uneven = ["--model.init_args.decoder.feed_forward.n_experts", 5]
    run("fit", "--config", "tiny.yaml", *layout("ep_cpu2"), *uneven, code=2)
    said = [line for line in Path("log").read_text().splitlines() if line.startswith("lit-moe")]
    assert len(said) == 1 and "5 experts can't be divided evenly among 2 devices; set it to a divisor of 5." in said[0]
    assert not Path("runs").exists()


@pytest.mark.slow
def test_sigterm_saves_a_folder_and_a_kill_leaves_one(token_root):
    write_config(token_root, steps=100_000, every=1)
    process = start("fit", "--config", "tiny.yaml", *layout("ep_cpu2", 1000), *FOLDER, "--run", "run")
    try:
        wait_for(process, 3)
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(120) == 143, Path("log").read_text()[-3000:]
    finally:
        finish(process)
    begun = last_step()
    process = start("fit", "--ckpt_path", LAST.format("run"))
    try:
        wait_for(process, begun + 3)
        os.killpg(process.pid, signal.SIGKILL)
    finally:
        finish(process)
    run("fit", "--ckpt_path", LAST.format("run"), "--trainer.max_steps", last_step() + 2)
    assert not list(Path("runs/moe/run/checkpoints").glob(".*"))
    steps = [row["step"] for row in rows("run") if "train/loss" in row]
    assert steps == [str(number) for number in range(len(steps))]


def wait_for(process, step):
    end = time.monotonic() + 240
    while last_step() < step:
        assert process.poll() is None and time.monotonic() < end, Path("log").read_text()[-3000:]
        time.sleep(0.05)
