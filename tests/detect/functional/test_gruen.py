"""GRUEN's parts on hand-made texts, against naive loops and POT."""

import math

import numpy as np
import ot
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_detect.functional.gruen import (
    edit_distance,
    focus,
    grammaticality,
    gruen,
    parts_of,
    redundancy,
    repeats,
    word_mover_similarity,
)


def test_grammaticality_is_the_published_formula():
    losses, logits = [0.1, 0.5], [2.0, -1.0]
    mean = (math.exp(0.1) + math.exp(0.5)) / 2
    assert grammaticality(losses, logits) == pytest.approx((math.exp(-0.5 * mean) + 0.5) / 8 + 0.5)
    assert grammaticality([900.0], [-9.0]) == 0  # not below, and no overflow


@pytest.mark.parametrize(
    ("a", "b", "flags"),
    [
        ("I am a boy.", "I am a boy.", 4),
        ("I am a boy.", "He said I am a boy. Then he left.", 4),
        ("Short one.", "Short two.", 0),  # fewer than five words: looked at only where one is within the other
        ("The old man walked home in the rain.", "Nobody had ever thought of asking her sister why.", 0),
        # another word in the middle: near by edits and by words, no long common substring
        ("The old man walked home in the rain.", "The old man crawled home in the rain.", 2),
        # the same words in another order
        ("one two three four five six", "six five four three two one", 1),
        # all but the last letters: by characters and by edits, words are other ones at the end only
        ("a b c d e f g h i j k", "a b c d e f g h i j x y", 4),
    ],
)
def test_repeats_counts_flags(a, b, flags):
    assert repeats(a, b) == flags
    assert redundancy([a, b]) == pytest.approx(-0.1 * flags)


def test_every_pair_of_sentences_is_compared():
    assert redundancy(["I am a boy."] * 3) == pytest.approx(-1.2)
    assert redundancy(["I am a boy."]) == 0


@settings(deadline=None)
@given(st.text("abc ", max_size=9), st.text("abc ", max_size=9))
def test_edit_distance_is_levenshteins(a, b):
    table = np.zeros((len(a) + 1, len(b) + 1), dtype=int)
    for i in range(len(a) + 1):
        for j in range(len(b) + 1):
            if not i or not j:
                table[i, j] = i + j
            else:
                least = min(table[i - 1, j], table[i, j - 1]) + 1
                table[i, j] = min(least, table[i - 1, j - 1] + (a[i - 1] != b[j - 1]))
    assert edit_distance(a, b) == table[-1, -1]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 7), min_size=1, max_size=8), st.lists(st.integers(0, 7), min_size=1, max_size=8))
def test_word_mover_similarity_is_pots(a, b):
    vectors = np.random.default_rng(0).normal(size=(8, 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = vectors @ vectors.T
    ours = word_mover_similarity([str(i) for i in a], [str(i) for i in b], lambda x, y: cosines[int(x), int(y)])
    masses = [np.full(len(words), 1 / len(words)) for words in (a, b)]
    assert ours == pytest.approx(1 - ot.emd2(*masses, 1 - cosines[np.ix_(a, b)]), abs=1e-7)
    if sorted(a) == sorted(b):
        assert ours == pytest.approx(1)


def test_focus_is_lost_by_one_pair():
    assert focus([0.9, 0.04, 0.5]) == -0.1 and focus([0.05]) == 0 and focus([]) == 0


def test_the_score_is_clipped():
    assert gruen(0.9, -0.1, -0.1) == pytest.approx(0.7)
    assert gruen(0.3, -0.8, 0.0) == 0 and gruen(1.4, 0.0, 0.0) == 1


@pytest.mark.parametrize(
    ("sentences", "words", "sizes"),
    [
        (1, 10, [1]),
        (6, 20, [6]),
        (7, 20, [4, 3]),
        (12, 20, [6, 6]),
        (13, 20, [4, 5, 4]),
        (18, 20, [6, 6, 6]),
        (19, 20, [5, 5, 4, 5]),
        (25, 20, [6, 6, 7, 6]),  # 500 words: four parts at most
        (27, 20, [5, 6, 5, 6, 5]),  # 540 words: a part for each begun six sentences
        (60, 20, [9, 8, 9, 8, 9, 8, 9]),  # seven at most
    ],
)
def test_parts_are_equal_and_lose_nothing(sentences, words, sizes):
    text = [f"{'word ' * (words - 1)}number{place}." for place in range(sentences)]
    parts = parts_of(text)
    assert [sentence for part in parts for sentence in part] == text
    assert sorted(map(len, parts)) == sorted(sizes) and max(sizes) - min(sizes) <= 1


def test_a_last_sentence_without_an_end_is_left_out():
    assert parts_of(["One is.", 'Two "is."', "Three is cut"]) == [["One is.", 'Two "is."']]
    assert parts_of(["Only this"]) == [["Only this"]]
