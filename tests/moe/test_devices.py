"""Two processes train, validate and test as one does, and end together."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from all_routers import BALANCED
from fit_run import (
    VALUE,
    assert_close_rows,
    assert_close_weights,
    checkpoint,
    finish,
    last_step,
    layout,
    rows,
    run,
    samples,
    start,
    witnessed,
    write_config,
)

LAST = "runs/moe/{}/checkpoints/last.ckpt"


@pytest.fixture(autouse=True)
def in_empty_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def fit(name, *flags, **options):
    run("fit", "--config", "tiny.yaml", "--run", name, *flags, **options)


ROUTERS = [pytest.param(name, marks=() if name == "SinkhornRouter" else pytest.mark.slow) for name in BALANCED]


@pytest.mark.parametrize("router", ROUTERS)
def test_two_devices_train_as_one(token_root, router):
    """With replay, accumulation, validation and clipping; the balance of the routers is that of the global batch."""
    write_config(token_root, steps=6, router=router, path="one.yaml")
    run("fit", "--config", "one.yaml", *layout(check_every=3), "--run", "one")
    Path("witness.0").rename("one.0")
    Path("one.yaml").rename("tiny.yaml")
    run("fit", "--config", "tiny.yaml", *layout(devices=2, check_every=3))  # finds a name that both ranks use

    assert sorted(path.name for path in Path("runs/moe").iterdir()) == ["one", "tiny-1"]
    assert len(list(Path("runs/moe/tiny-1").rglob("*.csv"))) == 1
    assert len(list(Path("runs/moe/tiny-1").rglob("events.*"))) == 1
    assert_close_rows(rows("tiny-1"), rows("one"))
    assert {"train/router/mri/layer_01", "train/replay_fraction", "train/loss"} < set(rows("one")[1])
    assert [row["step"] for row in rows("one") if "val/austen/forgetting" in row] == ["0", "2", "5"]
    assert_close_weights(checkpoint("tiny-1"), checkpoint("one"))

    assert {rank for rank, _ in witnessed()} == {0, 1}
    assert samples("witness") == samples("one")
    seen = [sample for step in samples("witness").values() for sample, _ in step]
    assert len(seen) == len(set(seen)) == 6 * 8
    assert "sync_dist" not in Path("log").read_text()


@pytest.mark.slow
def test_two_devices_validate_and_test_as_one(token_root):
    """On 10 samples per source, which two devices with batches of 2 must pad."""
    write_config(token_root, steps=4)
    fit("one", *layout(check_every=4))
    flags = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--ckpt_path"]
    for command in ("validate", "test"):
        for devices in (1, 2):
            run(command, *layout(devices), *flags, LAST.format("one"), "--run", f"{command}-{devices}")
        assert_close_rows(rows(f"{command}-2"), rows(f"{command}-1"))
    assert "test/stdlib/router/mri/layer_00" in rows("test-2")[0]
    trained, validated = rows("one")[-1], rows("validate-2")[0]
    assert trained["step"] == validated["step"] == "3"
    for key in ("val/austen/loss", "val/stdlib/bits_per_byte", "val/austen/router/mri/layer_01"):
        assert float(validated[key]) == pytest.approx(float(trained[key]), **VALUE), key


@pytest.mark.slow
def test_a_run_is_resumed_on_one_device_and_on_two_again(token_root):
    write_config(token_root, steps=9)
    fit("one", *layout(check_every=3))
    Path("witness.0").rename("one.0")
    fit("moved", *layout(devices=2, check_every=3), "--trainer.max_steps", "2")
    for devices, steps in ((1, 5), (2, 9)):
        flags = [*layout(devices, check_every=3), "--trainer.max_steps", steps]
        run("fit", "--ckpt_path", LAST.format("moved"), *flags)
    assert_close_rows(rows("moved"), rows("one"))
    assert_close_weights(checkpoint("moved"), checkpoint("one"))
    assert samples("witness") == samples("one")


@pytest.fixture
def running(token_root):
    """A run on two devices that would go on for hours, with the process ids of its ranks."""
    write_config(token_root, steps=100_000)
    Path("nan.yaml").write_text("trainer: {callbacks+: [{class_path: fit_run.Poison, init_args: {rank: 1, step: 6}}]}")
    started = []

    def begin(*flags):
        process = start("fit", "--config", "tiny.yaml", "--run", "run", *layout(2), *flags)
        started.append(process)
        end = time.monotonic() + 120
        while len({rank for rank, _ in witnessed()}) < 2 or last_step() < 3:
            assert process.poll() is None and time.monotonic() < end, Path("log").read_text()[-3000:]
            time.sleep(0.05)
        return process, {rank: row["pid"] for rank, row in witnessed()}

    yield begin
    for process in started:
        finish(process)


def wait_for_end(pid, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
        if not state or state.startswith("Z"):
            return
        time.sleep(0.1)
    raise AssertionError(f"process {pid} still runs")


@pytest.mark.parametrize(
    "target", ["group", pytest.param(0, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.slow)]
)
def test_sigterm_saves_and_ends_all_ranks(running, target):
    process, pids = running()
    if target == "group":
        os.killpg(process.pid, signal.SIGTERM)
    else:
        os.kill(pids[target], signal.SIGTERM)
    assert process.wait(60) == 143
    wait_for_end(pids[1], 30)
    step = checkpoint("run")["global_step"]
    assert step >= 4
    assert [row["step"] for row in rows("run") if "train/loss" in row] == [str(number) for number in range(step)]
    assert f"resume with: lit-moe fit --ckpt_path {LAST.format('run')}" in Path("log").read_text()


@pytest.mark.slow
def test_a_killed_rank_ends_the_command_and_leaves_the_last_checkpoint(running):
    """Rank 0 says so with gloo, if Lightning, which kills it five seconds later at most, lets it."""
    process, pids = running()
    os.kill(pids[1], signal.SIGKILL)
    assert process.wait(60) in (1, -signal.SIGKILL)
    step = checkpoint("run")["global_step"]
    assert step >= 2
    if process.returncode == 1:
        assert "Another process of this run has ended" in Path("log").read_text()
    run("fit", "--ckpt_path", LAST.format("run"), *layout(2), "--trainer.max_steps", step + 2)
    assert [row["step"] for row in rows("run") if "train/loss" in row] == [str(number) for number in range(step + 2)]


@pytest.mark.slow
def test_a_killed_rank_0_takes_the_other_with_it(running):
    process, pids = running()
    process.kill()
    process.wait()
    wait_for_end(pids[1], 60)
    assert checkpoint("run")["global_step"] >= 2


@pytest.mark.slow
def test_a_nan_on_rank_1_alone_is_told(running):
    process, pids = running("--config", "nan.yaml")
    assert process.wait(120) in (1, -signal.SIGKILL)
    wait_for_end(pids[1], 30)
    assert "lit-moe, rank 1: The loss became nan at step 6" in Path("log").read_text()
    weights = checkpoint("run")["state_dict"].values()
    assert all(bool(weight.isfinite().all()) for weight in weights)
