"""The simulation of false alarms, on a few texts whose true rates are known."""

import json
import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import false_alarms
from false_alarms import FINE, Text, at_one_threshold, by_length, given, in_buckets, length_rows


def texts(n=420, seed=0):
    """Texts of 50 to 200 tokens whose scores scatter more, the shorter they are."""
    draw, made = random.Random(seed), []
    for number in range(n):
        tokens, own = draw.randint(50, 200), draw.gauss(0, 0.05)
        scores = {length: own + draw.gauss(0, 50 / length) for length in FINE if length <= tokens}
        made.append(Text(own + draw.gauss(0, 50 / tokens), tokens, scores, "ab"[number % 2]))
    return made


def rate(rule, chosen):
    called = [rule(text.score, text.tokens) for text in chosen]
    return sum(called) / len(called)


def test_one_threshold_fails_short_texts_and_the_others_do_not():
    human, fresh = texts(600), [text for text in texts(4000, 1) if text.tokens < 70]
    assert rate(at_one_threshold(human), fresh) > 0.09
    assert rate(by_length(human), fresh) < 0.06
    assert by_length(human)(9.0, 49) is None and by_length(human)(9.0, 300) is None


def test_a_range_without_human_texts_calls_nothing_machine():
    assert not in_buckets(texts())(9.0, 450)


def test_the_table_has_a_row_for_each_rule(monkeypatch):
    monkeypatch.setattr(false_alarms, "TESTED", 60)
    rows = list(length_rows(texts(), 300, 2))
    assert [row[0] for row in rows] == list(false_alarms.RULES) and all(len(row) == 9 for row in rows)


def test_scores_of_a_file_are_beginnings_and_whole_texts(tmp_path):
    rows = [{"id": "a", "tokens": n, "score": n / 100, "domain": "news"} for n in (50, 71, 80)]
    rows.append({"id": "b", "tokens": 40, "score": 0.0})  # too short
    (tmp_path / "s.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (found,) = given(tmp_path / "s.jsonl")
    assert (found.score, found.tokens, found.domain) == (pytest.approx(0.8), 80, "news") and found.beginnings[
        71
    ] == 0.71
