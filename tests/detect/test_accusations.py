"""What is said of a batch: expected false accusations, the false discovery rate, and texts of another kind."""

import math
import random

import pytest

from lit_core.errors import UserError
from lit_detect.accusations import accusation_lines, check_fdr, with_fdr
from lit_detect.calibration import Calibration
from lit_detect.human_scores import Group, Length

HUMAN = tuple(number / 600 for number in range(600))


def calibration(**changes):
    group = Group((Length(50, HUMAN),), Length(400, HUMAN))
    return Calibration(**{"fpr": 0.05, "detector": "D", "checkpoint_sha256": None, "groups": {"": group}, **changes})


def rows_of(scores, tokens=100, **changes):
    rows = []
    for score in scores:
        p_value, is_machine, reason = calibration(**changes).judge(score, tokens)
        decision = "abstain" if is_machine is None else "machine" if is_machine else "human"
        rows.append({"score": score, "p_value": p_value, "decision": decision, "tokens": tokens, "reason": reason})
    return rows


def lines_of(rows, fdr=None, **changes):
    return accusation_lines(rows, calibration(**changes), [""] * len(rows), fdr)


def humans(n=120, seed=0):
    draw = random.Random(seed)
    return [draw.random() * 0.94 for _ in range(n)]  # none is called machine


def test_the_expected_number_is_said_with_its_promise():
    rows = rows_of([*humans(118), 0.996, 0.9699])
    assert lines_of(rows) == [
        "2 of 120 judged texts are called machine; if all were by humans like those of the calibration, at most 6 "
        "would be (in expectation).",
        "The weakest: 18 of 600 human texts of its length score as high; among these 120, 3.8 would be expected if all "
        "were by humans (in expectation).",
        "The strongest: 2 of 600 human texts of its length score as high; among these 120, 0.6 would be expected if "
        "all were by humans (in expectation).",
    ]
    (first, *_) = lines_of(rows_of([0.996], confidence=0.95), confidence=0.95)
    assert first.endswith("at most 0.05 would be (with 95 % confidence in the rate).")
    assert len(lines_of(rows_of([0.5, 2.0]))) == 2 and "none of 600" in lines_of(rows_of([0.5, 2.0]))[1]
    assert len(lines_of(rows_of([0.5]))) == 1
    assert lines_of(rows_of([0.5], tokens=10)) == ["None of 1 texts is judged; the column `reason` says why."]
    assert lines_of([]) == []


def test_the_false_discovery_rate_leaves_the_strongest():
    rows = rows_of([*humans(100), *[0.99] * 2, *[2.0] * 18])
    kept = with_fdr(rows, 0.1)
    assert [row["decision"] for row in kept[-20:]] == ["machine"] * 20  # p = 7/601 at rank 20 of 120
    few = with_fdr(rows_of([*humans(119), 2.0]), 0.1)
    assert few[-1]["decision"] == "abstain" and "false discovery rate of 10 % of this batch" in few[-1]["reason"]
    assert math.isnan(few[-1]["probability"])
    windows = [{"start": 0, "end": 9, "score": 2.0, "flagged": True}]
    flagged = with_fdr([{**row, "windows": windows} for row in rows_of([*humans(119), 2.0])], 0.1)
    assert not flagged[-1]["windows"][0]["flagged"] and windows[0]["flagged"], "as of every text that is not decided"
    assert few[:-1] == rows_of([*humans(119), 2.0])[:-1]
    assert with_fdr([], 0.1) == [] and lines_of(kept, 0.1)[-1].startswith("At most 10 % of the 20 are by humans")


def test_among_humans_alone_few_batches_have_a_discovery():
    draw = random.Random(0)
    batches = [with_fdr(rows_of([draw.random() for _ in range(60)]), 0.1) for _ in range(200)]
    found = sum(any(row["decision"] == "machine" for row in batch) for batch in batches)
    assert found <= 35  # 10 % of 200 are expected at most; all share the human texts


def test_texts_like_those_of_a_group_are_of_no_other_kind():
    shifted = Group(
        (Length(50, tuple(score + 5 for score in HUMAN)),), Length(400, tuple(score + 5 for score in HUMAN))
    )
    both = calibration(groups={"a": calibration().groups[""], "b": shifted}, by="domain", strictest=True)
    rows = rows_of(humans())
    assert not any("Warning" in line for line in accusation_lines(rows, both, [""] * len(rows)))


def test_texts_of_another_kind_are_warned_of():
    assert not any("Warning" in line for line in lines_of(rows_of(humans())))
    low = lines_of(rows_of([score / 4 for score in humans()]))
    assert any("% of the texts score as low as the lowest 10 %" in line for line in low)
    assert not any("Warning" in line for line in lines_of(rows_of([0.0, 0.01, 0.02, 0.5])))  # few may be so by chance
    short = lines_of([*rows_of(humans(80)), *rows_of(humans(20), tokens=9)])
    assert any("20 of 100 texts have a length or group that the calibration did not measure" in line for line in short)
    high = lines_of(rows_of([*humans(40), *[2.0] * 60]))
    assert any("more than half are called machine" in line for line in high)


@pytest.mark.parametrize("fdr", [0, 1, -0.1, 10])
def test_a_rate_that_is_no_share_is_refused(fdr):
    with pytest.raises(UserError, match=f"`fdr` is {fdr}"):
        check_fdr(fdr)
    check_fdr(None)
    check_fdr(0.1)
