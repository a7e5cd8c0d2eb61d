"""Thresholds and rates against scikit-learn and against the definition, ties included."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_fscore_support, roc_auc_score, roc_curve

from lit_core.errors import UserError
from lit_detect.functional.threshold import (
    auroc,
    class_scores,
    false_positive_rate,
    paired_accuracy,
    threshold_at_fpr,
    tpr_at_fpr,
)

# few levels make ties, so that the rule is exercised
tied = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=40)
free = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40)
rates = st.sampled_from([0.0, 0.01, 0.05, 0.1, 0.29, 0.5, 0.99]) | st.floats(0, 0.999)


def tensors(human, machine):
    return torch.tensor(human, dtype=torch.float64), torch.tensor(machine, dtype=torch.float64)


def curve(human, machine):
    labels = [0] * len(human) + [1] * len(machine)
    return roc_curve(labels, [*human, *machine], drop_intermediate=False)


@settings(deadline=None)
@given(tied | free, tied | free, rates)
def test_tpr_at_fpr_is_the_best_point_of_sklearns_curve(human, machine, fpr):
    if len({*human, *machine}) < 2:
        return
    false, true, _ = curve(human, machine)
    found, achieved = tpr_at_fpr(*tensors(human, machine), fpr)
    assert found == pytest.approx(true[false <= fpr].max(), abs=1e-12)
    assert achieved <= fpr
    # the achieved rate is the largest that ties among the human texts allow
    levels = [sum(h >= level for h in human) / len(human) for level in {*human}]
    assert achieved == pytest.approx(max([0.0, *[rate for rate in levels if rate <= fpr]]), abs=1e-12)


@settings(deadline=None)
@given(tied | free, rates)
def test_no_smaller_threshold_keeps_the_rate(human, fpr):
    scores, _ = tensors(human, [])
    threshold = threshold_at_fpr(scores, fpr)
    assert false_positive_rate(scores, threshold) <= fpr
    assert false_positive_rate(scores, math.nextafter(threshold, -math.inf)) > fpr


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


def test_one_percent_of_a_hundred_is_one_text():
    human = torch.arange(100, dtype=torch.float64)
    assert false_positive_rate(human, threshold_at_fpr(human, 0.01)) == 0.01
    assert false_positive_rate(human, threshold_at_fpr(human, 0.29)) == 0.29  # 0.29 * 100 < 29 in floats
    assert false_positive_rate(human[:99], threshold_at_fpr(human[:99], 0.01)) == 0.0


def test_tied_human_scores_stay_on_one_side():
    human = torch.tensor([0.0, 1, 2, 2, 2])
    assert threshold_at_fpr(human, 0.4) > 2
    assert 1 < threshold_at_fpr(human, 0.6) <= 2


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
    for measure in (auroc, lambda h, m: tpr_at_fpr(h, m, 0.01), lambda h, m: threshold_at_fpr(m, 0.01)):
        with pytest.raises(UserError, match=r"1 of \d are not finite"):
            measure(human, machine)


def test_constant_scores_are_refused():
    same = torch.ones(4)
    for measure in (auroc, lambda h, m: tpr_at_fpr(h, m, 0.01)):
        with pytest.raises(UserError, match="all 8 are 1"):
            measure(same, same)


def test_a_rate_out_of_range_and_no_human_text_are_refused():
    with pytest.raises(UserError, match=r"`fpr` is 1\.0"):
        threshold_at_fpr(torch.ones(3), 1.0)
    with pytest.raises(UserError, match="no human text"):
        threshold_at_fpr(torch.ones(0), 0.1)
