"""Thresholds and rates against scikit-learn and against the definition, ties included."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_fscore_support, roc_auc_score

from lit_core.errors import UserError
from lit_detect.functional.threshold import (
    auroc,
    class_scores,
    paired_accuracy,
    share_above,
)

# few levels make ties, so that the rule is exercised
tied = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=40)
free = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40)


def tensors(human, machine):
    return torch.tensor(human, dtype=torch.float64), torch.tensor(machine, dtype=torch.float64)


@settings(deadline=None)
@given(tied | free, tied | free)
def test_auroc_is_sklearns(human, machine):
    if len({*human, *machine}) < 2:
        return
    labels = [0] * len(human) + [1] * len(machine)
    assert auroc(*tensors(human, machine)) == pytest.approx(roc_auc_score(labels, [*human, *machine]), abs=1e-12)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 1)), min_size=1, max_size=30))
def test_class_scores_are_sklearns(rows):
    decisions, labels = (np.array(column) for column in zip(*rows, strict=True))
    values = class_scores(torch.tensor(decisions), torch.tensor(labels))
    theirs = precision_recall_fscore_support(labels, decisions, labels=[0, 1], zero_division=np.nan)
    for kind, column in zip(("precision", "recall", "f1"), theirs, strict=False):
        for name, value in zip(("human", "machine"), column, strict=True):
            assert values[f"{kind}/{name}"] == pytest.approx(value, abs=1e-12, nan_ok=True), (kind, name)
    assert values["accuracy"] == pytest.approx((decisions == labels).mean())


def test_a_score_at_a_threshold_is_above():
    assert share_above(torch.tensor([0.0, 1, 2, 2]), 2) == 0.5
    assert math.isnan(share_above(torch.ones(0), 0))


def test_paired_accuracy_compares_own_twins_only():
    scores = torch.tensor([0.0, 1.0, 5.0, 4.0, 2.0, 2.0, 9.0])
    labels = torch.tensor([0, 1, 0, 1, 1, 0, 1])
    pairs = torch.tensor([0, 0, 1, 1, 2, 2, 3])  # right, wrong, a tie, and a text without a twin
    assert paired_accuracy(scores, labels, pairs) == pytest.approx((1 + 0 + 0.5) / 3)
    shuffle = torch.tensor([6, 3, 0, 5, 2, 4, 1])
    assert paired_accuracy(scores[shuffle], labels[shuffle], pairs[shuffle]) == pytest.approx(0.5)
    # every machine text is above every human one of another pair, and below its own
    crossed = torch.tensor([10.0, 9.0, 1.0, 0.0])
    assert paired_accuracy(crossed, torch.tensor([0, 1, 0, 1]), torch.tensor([0, 0, 1, 1])) == 0


def test_a_pair_of_many_passages_counts_once():
    scores = torch.tensor([0.0, 1.0, 2.0, 3.0, 5.0, 4.0])
    labels, pairs = torch.tensor([0, 1, 1, 1, 0, 1]), torch.tensor([0, 0, 0, 0, 1, 1])
    assert paired_accuracy(scores, labels, pairs) == 0.5
    assert math.isnan(paired_accuracy(scores[:1].repeat(2) + torch.tensor([0, 1]), labels[1:3], pairs[1:3]))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_are_no_numbers_are_refused(bad):
    human, machine = tensors([0.0, 1.0], [bad, 2.0])
    with pytest.raises(UserError, match=r"1 of 4 are not finite"):
        auroc(human, machine)


def test_constant_scores_are_refused():
    same = torch.ones(4)
    with pytest.raises(UserError, match="all 8 are 1"):
        auroc(same, same)
