"""Evasion and its price on hand-made texts."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lit_detect.functional.evasion import evasion, perplexity, words_changed
from lit_detect.records import Edit


def test_evasion_is_over_what_was_detected_before():
    before = torch.tensor([2.0, 1.0, 3.0, -1.0, 5.0])
    after = torch.tensor([0.0, 1.0, -2.0, 4.0, 9.0])
    values = evasion(before, after, 1.0)
    assert values == {"evasion": 0.5, "recall_before": 0.8, "recall_after": 0.6, "detected": 4}
    assert math.isnan(evasion(before - 9, after, 1.0)["evasion"])
    assert math.isnan(evasion(before[:0], after[:0], 1.0)["recall_before"])


@pytest.mark.parametrize(
    ("edits", "changed"),
    [
        ([], 0),
        ([Edit(4, 7, "big", "large")], 1),
        ([Edit(4, 11, "big cat", "dog")], 2),
        ([Edit(3, 4, " ", "  ")], 0),  # a blank more, as the format attacks make
        ([Edit(5, 5, "", "\u200b"), Edit(6, 6, "", "\u200b")], 1),
        ([Edit(0, 4, "the ", "")], 1),
        ([Edit(0, 1, "t", "T"), Edit(8, 9, "c", "C"), Edit(12, 13, "s", "z")], 3),
    ],
)
def test_words_changed(edits, changed):
    assert words_changed("the big cat sat", edits) == changed


@given(st.lists(st.booleans(), min_size=1, max_size=12))
def test_each_replaced_word_counts_once(replaced):
    words = [f"word{number}" for number in range(len(replaced))]
    places = [sum(len(word) + 1 for word in words[:number]) for number in range(len(words))]
    edits = [
        Edit(start, start + len(word), word, "x")
        for start, word, chosen in zip(places, words, replaced, strict=True)
        if chosen
    ]
    assert words_changed(" ".join(words), edits) == sum(replaced)


def test_perplexity_is_the_exponential_of_the_mean_loss():
    found = perplexity([torch.log(torch.tensor([0.5, 0.125])), torch.log(torch.tensor([0.1])), torch.zeros(0)])
    assert found[:2].tolist() == pytest.approx([4.0, 10.0]) and math.isnan(found[2])
    assert len(perplexity([])) == 0
