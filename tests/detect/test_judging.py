"""Judgements: decisions by windows, and when none is made."""

import math
from dataclasses import astuple, replace

import lightning.pytorch as pl
import pytest
import torch
from test_windows import Words
from torch.utils.data import DataLoader

from lit_core.errors import UserError
from lit_detect.calibration import Calibration
from lit_detect.detectors.normalization import with_normalization
from lit_detect.functional.calibration import Platt
from lit_detect.human_scores import Group, Length
from lit_detect.judging import Judge
from lit_detect.language.repetition import repeated_share
from lit_detect.module import DetectorTask
from lit_detect.study.judge import Judge as StudyJudge

LONG = " ".join(["word"] * 40 + ["x", "x", "x"] + ["word"] * 40)
JUDGE = Judge(Words(), 2.0, Platt(1.0, -2.0), min_tokens=5)
HUMAN = Group((Length(1, (2.0,) * 60),), Length(1000, (2.0,) * 60))
CALIBRATED = replace(JUDGE, calibration=Calibration(0.05, "Words", "", {"": HUMAN}))


def test_a_text_that_is_read_whole_is_decided_by_the_fitted_threshold():
    machine, human = JUDGE.judge(["a b x c x", "a b c d x"])
    assert (machine.decision, machine.score, machine.probability, machine.tokens) == ("machine", 2, 0.5, 5)
    assert [(w.start, w.end, w.score, w.is_flagged) for w in machine.windows] == [(0, 9, 2, True)]
    assert human.decision == "human" and human.probability < 0.5 and not human.windows[0].is_flagged


def test_the_probability_is_of_the_exact_score(monkeypatch):
    monkeypatch.setattr(Words, "score", lambda self, texts: torch.full((len(texts),), 1 / 3, dtype=torch.float64))
    (found,) = replace(JUDGE, threshold=1 / 3, platt=Platt(3e6, -1e6)).judge(["a b x c x"])
    assert (found.decision, found.score) == ("machine", 1 / 3) and found.probability == pytest.approx(0.5, abs=1e-9)


def test_a_window_in_the_middle_of_a_long_text_makes_it_a_machines():
    (found,) = CALIBRATED.judge([LONG])
    assert found.decision == "machine" and found.score == 3 and found.tokens == 83 and found.reason == ""
    assert found.p_value == 1 / 61
    flagged = [window for window in found.windows if window.is_flagged]
    assert 1 <= len(flagged) <= 2 and all("x x x" in LONG[window.start : window.end] for window in flagged)
    assert CALIBRATED.scores([LONG, "a", "x"]).tolist() == [3, 0, 1]
    assert found.probability is None, "the fitted map is of one window"


def test_it_abstains_from_texts_of_another_kind_than_the_human_ones_alone():
    listed, prose = "x y z " * 8, "x x x the of and to a in that is"
    limited = replace(CALIBRATED, calibration=replace(CALIBRATED.calibration, most_repeated=0.3, in_english=True))
    assert [found.decision for found in CALIBRATED.judge([listed, prose, LONG])] == ["machine"] * 3
    repeats, machine, foreign = limited.judge([listed, prose, "x x x Es war einmal ein König, der war alt"])
    assert machine.decision == "machine" and foreign.reason.startswith("not English prose")
    limited = replace(limited, calibration=replace(limited.calibration, in_english=False))
    assert limited.judge([listed])[0].reason == (
        "86% of the word triples of the text or a window are repeated, and in the human texts of the calibration at "
        "most 30%"
    )
    assert repeats.decision == "abstain" and repeats.p_value is None is repeats.probability


def test_a_window_that_repeats_itself_is_of_another_kind_also_in_a_long_text():
    varied = [f"w{number}" for number in range(60)]
    listed = " ".join([*varied[:30], *["x", "y", "z"] * 5, *varied[30:]])
    judge = replace(CALIBRATED, calibration=replace(CALIBRATED.calibration, most_repeated=0.3))
    assert repeated_share(listed) < 0.2 and judge.repeated_shares([listed, "a b c d"]) == [5 / 8, 0]
    (found,) = judge.judge([listed])
    assert found.decision == "abstain" and found.reason.startswith("62% of the word triples of the text or a window")


def test_the_kind_of_a_text_is_that_of_the_text_that_the_detector_reads():
    plain = "It was the best of times, it was the worst of times, x x x x"
    disguised = "\u200b".join(plain.translate(str.maketrans("aeo", "\u0430\u0435\u043e")))
    of_english = replace(CALIBRATED, calibration=replace(CALIBRATED.calibration, in_english=True))
    judge = replace(of_english, detector=with_normalization(Words()))
    assert judge.are_english([plain, disguised]) == [True, True] and of_english.are_english([disguised]) == [False]
    found = judge.judge([plain, disguised])
    assert [one.decision for one in found] == ["machine", "machine"] and found[0].p_value == found[1].p_value


def test_it_abstains_from_what_it_cannot_tell():
    blank, short, several = JUDGE.judge([" \n ", "x x x", LONG])
    assert (blank.decision, blank.tokens, blank.reason) == ("abstain", 0, "0 tokens, fewer than 5")
    assert (short.decision, short.score, short.probability) == ("abstain", 3, None)
    assert several.decision == "abstain" and "run `lit-detect calibrate`" in several.reason
    assert several.probability is None and not any(window.is_flagged for window in several.windows)
    assert replace(JUDGE, min_tokens=0).judge([" "])[0].reason == "0 tokens, fewer than 1"
    (new,) = Judge(Words(), min_tokens=0).judge(["x x"])
    assert new.decision == "abstain" and new.reason.startswith("no threshold")


@pytest.mark.parametrize(
    ("texts", "groups", "sentence"),
    [
        ("a b x c x", None, r"is one text, but must be a list of texts; give \[text\]"),
        (["a", None], None, "has a NoneType at index 1"),
        (["a", b"b"], None, "has a bytes at index 1"),
        (["a", "b \ud800"], None, "index 1, holds half a surrogate pair at character 2"),
        (["a"], ["one", "two"], "There are 1 texts, but 2 `groups`"),
    ],
)
def test_what_is_no_list_of_texts_is_refused(texts, groups, sentence):
    with pytest.raises(UserError, match=sentence):
        JUDGE.judge(texts, groups)
    if groups is None:
        with pytest.raises(UserError, match=sentence):
            JUDGE.scores(texts)


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_it_abstains_from_a_score_that_is_no_number(score, monkeypatch):
    monkeypatch.setattr(Words, "score", lambda self, texts: torch.tensor([score if "x" in t else 1.0 for t in texts]))
    for judge, text in ((JUDGE, "a b x c d"), (CALIBRATED, LONG)):
        (one,) = judge.judge([text])
        assert one.decision == "abstain" and one.probability is None
        assert one.reason == "the score is not a finite number"


def test_equal_windows_are_scored_once_and_together(monkeypatch):
    asked = []
    score = Words.score
    monkeypatch.setattr(Words, "score", lambda self, texts: asked.append(list(texts)) or score(self, texts))
    CALIBRATED.judge([LONG, LONG, "a"], batch_size=1000)
    assert len(asked) == 1 and len(asked[0]) == len(set(asked[0]))
    assert JUDGE.judge([]) == [] and JUDGE.scores([]).shape == (0,)


def test_offsets_are_those_of_the_text_before_it_was_normalised():
    judge = replace(CALIBRATED, detector=with_normalization(Words()))
    hidden = "\u05e9\u05dc\u05d5\u05dd  \u200b " * 30 + "\u200bx\u200b x\u200b\n\n\n\n\nx " + "e\u0301\u00a0" * 30
    (found,) = judge.judge([hidden])
    flagged = [hidden[window.start : window.end] for window in found.windows if window.is_flagged]
    assert flagged and all(part.replace("\u200b", "").split().count("x") == 3 for part in flagged)


def test_a_test_leaves_out_what_is_too_short_and_says_what_it_reads_in_windows(capsys):
    task, trainer = DetectorTask(Words(), min_tokens=5), pl.Trainer(accelerator="cpu", logger=False, barebones=True)
    task.set_platt(Platt(1.0, -2.0))
    texts = ["a b x c x", "x x", LONG, "a b c d e"]
    batch = {"text": texts, "y": torch.tensor([1, 1, 1, 0]), "index": torch.arange(4)}
    trainer.test(task, DataLoader([batch], batch_size=None), verbose=False)
    assert task.called_machine["0"] == (0, 1, 2, 2)
    said = capsys.readouterr().out
    assert "1 of 4 texts have fewer than 5 tokens and are left out" in said
    assert "1 of 4 texts are longer than what Words reads at once; their score is the largest of their" in said


def test_a_study_says_once_of_how_many_texts_it_read_the_beginning_alone(capsys):
    judge = StudyJudge(DetectorTask(Words()), None, "32-true")
    assert judge([LONG, "x"]).tolist() == [0, 1]
    judge.tell_read_in_part()
    judge.tell_read_in_part()
    assert capsys.readouterr().out == "Words has read the beginning alone of 1 of 2 texts.\n"


def test_the_task_tells_what_its_judge_does():
    task = DetectorTask(Words(), min_tokens=5)
    task.set_platt(Platt(1.0, -2.0))
    texts = ["a b x c x", "x x", LONG, "of another batch"]
    parts = task.predict_step({"text": texts, "index": torch.tensor([4, 5, 6, -1])}, 0)
    assert parts["index"].tolist() == [4, 5, 6] and parts["decision"] == ["machine", "abstain", "abstain"]
    assert parts["score"].tolist() == [2, 2, 3] and parts["probability"].isfinite().tolist() == [True, False, False]
    told = [[tuple(window.values()) for window in windows] for windows in parts["windows"]]
    assert told == [[astuple(window) for window in one.windows] for one in task.judge().judge(texts[:3])]
    disguised = {"text": ["a b c d e"], "found": ["a \u0445 b \u200bx d"], "index": torch.tensor([0])}
    assert task.predict_step(disguised, 0)["score"].tolist() == [1]
