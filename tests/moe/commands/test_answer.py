"""What `lit-moe test` answers: the numbers are those of the loggers, compared by hand."""

import csv
from pathlib import Path

import pytest
from fit_run import write_config

from lit_moe.cli import main
from lit_moe.commands.answer import Shift, answer_lines

LAST = "runs/moe/{}/checkpoints/last.ckpt"


def metrics(losses, dead=1.0):
    values = {"test/router/mri_floor": 0.25}
    for name, loss in losses.items():
        values |= {f"test/{name}/loss": loss, f"test/{name}/bits_per_byte": loss / 2}
        values |= {f"test/{name}/router/mri/mean": loss / 8}
        values |= {f"test/{name}/router/dead_experts/layer_{layer:02d}": dead for layer in range(3)}
    return values


def cells(lines, name):
    return next(line.split() for line in lines if line.split()[:1] == [name])


def test_before_after_and_balance_are_those_of_the_metrics():
    shift = Shift(["austen"], ["stdlib"], {"austen": 3.25, "stdlib": 5.0}, where=["Before: a test."])
    lines = answer_lines("test", metrics({"austen": 4.0, "stdlib": 2.0}), shift, 12)
    assert cells(lines, "austen") == ["austen", "3.2500", "4.0000", "+0.7500", "2.0000"]
    assert cells(lines, "stdlib") == ["stdlib", "5.0000", "2.0000", "-3.0000", "1.0000"]
    balance = [line.split() for line in lines if " of 12" in line]
    assert balance == [
        ["austen", "0.5000", "0.2500", "2.00", "3", "of", "12"],
        ["stdlib", "0.2500", "0.2500", "1.00", "3", "of", "12"],
    ]
    assert "Before: a test." in lines


def test_validation_losses_stand_beside_that_of_the_test():
    shift = Shift(["austen"], [], {"austen": 3.0}, {"austen": 3.5}, ["Before and after: validation."])
    lines = answer_lines("test", metrics({"austen": 4.0, "new": 1.0}), shift, 0)
    assert cells(lines, "austen") == ["austen", "3.0000", "3.5000", "+0.5000", "4.0000", "2.0000"]
    assert cells(lines, "new") == ["new", "-", "-", "-", "1.0000", "0.5000"]


@pytest.mark.parametrize("compared", [True, False])
def test_many_sources_with_long_names_fit_a_small_screen(compared):
    names = [f"source-with-a-name-that-is-long-{number}" for number in range(9)]
    before = dict.fromkeys(names, 1.0) if compared else {}
    after = {name: 10.0 + number for number, name in enumerate(names)}
    lines = answer_lines("test", metrics(after), Shift(names[:3], names[3:6], before, after, ["a", "b"]), 1000)
    assert len(lines) <= 15
    assert max(map(len, lines)) <= 80
    assert [line.split("; ")[-1] for line in lines if "; worst" in line] == [
        *("worst 2 of 3", "worst 2 of 3", "worst 1 of 3", "worst 2 of 9")
    ]


def logged(run):
    with Path(f"runs/moe/{run}/metrics.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file)]


def last(run, key):
    return [row[key] for row in logged(run) if row.get(key)][-1]


def shown(run, capsys, *more):
    capsys.readouterr()
    assert main(["test", "--ckpt_path", LAST.format(run), *more]) == 0
    return capsys.readouterr().out.splitlines()


def test_a_branch_is_compared_with_the_test_of_its_parent_or_with_its_own_validations(
    tmp_path, monkeypatch, token_root, capsys
):
    monkeypatch.chdir(tmp_path)
    write_config(token_root, steps=2, every=0)
    fit = ["fit", "--config", "tiny.yaml", "--trainer.val_check_interval=8", "--run"]
    assert main([*fit, "first"]) == 0
    capsys.readouterr()
    assert main([*fit, "second", "--branch_from", LAST.format("first")]) == 0
    closing = capsys.readouterr().out.splitlines()
    validations = [row["val/austen/loss"] for row in logged("second") if row.get("val/austen/loss")]
    assert cells(closing, "austen")[2:4] == [f"{float(validations[0]):.4g}", f"{float(validations[-1]):.4g}"]

    first = shown("first", capsys)
    assert any("validation texts" in line for line in first)
    second = shown("second", capsys)
    old, new = (float(last(run, "test/austen/loss")) for run in ("first", "second"))
    assert cells(second, "austen")[1:4] == [f"{old:.4f}", f"{new:.4f}", f"{new - old:+.4f}"]
    assert any("the test of step 2 of runs/moe/first" in line for line in second)

    other = shown("second", capsys, "--data.init_args.test_samples=4")  # other texts than the parent's
    assert cells(other, "austen")[1:3] == [f"{float(loss):.4f}" for loss in (validations[0], validations[-1])]
    assert any(LAST.format("first") in line for line in other)
