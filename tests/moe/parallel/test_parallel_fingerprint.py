"""A model that is divided over two processes drifts from a fingerprint as one process says."""

import pytest
from fit_run import VALUE, rows, run, write_config

LAST = "runs/moe/{}/checkpoints/last.ckpt"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fsdp2_cpu2", "ep_cpu2"])
def test_a_divided_model_drifts_as_one(token_root, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write_config(token_root, steps=4)
    cpu = ["--config", "configs/trainer/cpu.yaml"]
    run("fit", "--config", "tiny.yaml", *cpu, "--run", "before", "--trainer.max_steps", 2)
    probe = ["--tokens", 100, "--sequence_length", 30, "--batch_size", 2]
    run("fingerprint", "--ckpt_path", LAST.format("before"), "--output", "before.npz", *probe)
    drift = ["--trainer.callbacks+=lit_moe.RouterDrift", "--trainer.callbacks.reference", "before.npz"]
    branch = ["fit", "--config", "tiny.yaml", "--branch_from", LAST.format("before"), *drift]
    run(*branch, *cpu, "--trainer.val_check_interval", 8, "--run", "one")
    run(*branch, "--config", f"configs/moe/trainer/{name}.yaml", "--trainer.val_check_interval", 4, "--run", "two")
    one, two = (
        [crs for row in rows(which) if (crs := {key: float(row[key]) for key in row if "/crs/" in key})]
        for which in ("one", "two")
    )
    assert len(one) == len(two) >= 2 and len(one[0]) == 6 * 3 and min(one[-1].values()) < 1
    for mine, theirs in zip(two, one, strict=True):
        assert mine == pytest.approx(theirs, **VALUE)
