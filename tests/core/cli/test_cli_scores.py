"""The table of validations that closes a training."""

import math

from lit_core.cli.scores import best_table


def test_what_is_nan_is_never_the_best():
    logged = {
        "val/a/loss": [(0, math.nan), (4, 3.0), (9, 4.0)],
        "val/b/loss": [(0, 1.0), (9, math.nan)],
        "val/c/auroc": [(0, math.nan), (9, math.nan)],
        "train/loss": [(0, 9.0)],
    }
    _, *rows = best_table(logged, {"loss": min, "auroc": max})
    assert [row.split() for row in rows] == [
        ["a", "loss", "nan", "4", "3", "step", "5"],
        ["b", "loss", "1", "nan", "1", "start"],
        ["c", "auroc", "nan", "nan", "nan", "-"],
    ]


def test_a_single_validation_is_one_column():
    assert best_table({"val/a/loss": [(19, 0.5)], "val/a/auroc": [(19, 1.0)]}, {"loss": min, "auroc": max}) == [
        "validation  step 20",
        "a loss          0.5",
        "a auroc           1",
    ]


def test_nothing_validated_is_no_table():
    assert best_table({"train/loss": [(0, 1.0)]}, {"loss": min}) == []
