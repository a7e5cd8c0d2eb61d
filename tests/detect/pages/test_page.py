"""The page of a text: each word in its colour, what is flagged, and text of others that does nothing."""

import re
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from elements import Page
from test_judging import CALIBRATED, JUDGE, LONG

from lit_core.lm import HuggingFaceLM
from lit_detect.detectors import LogLikelihood
from lit_detect.detectors.normalization import with_normalization
from lit_detect.judging import Judge
from lit_detect.pages.expected import Word, causal_model, words_of
from lit_detect.pages.page import page_of

#: Markup, right-to-left text, marks, emoji of several characters, text without blanks, and characters that hide.
HOSTILE = [
    "<script>alert(1)</script> <img src=x onerror=alert(1)> </p></mark> &lt; \" '",
    "שָׁלוֹם עולם مرحبا بالعالم",
    "e\u0301\u0301 naïve Z\u0351\u036b\u0343\u036a " + "a" + "\u0301" * 30,
    "👩\u200d👩\u200d👧 می\u200cخواهم",
    "今天天气很好，我们去公园。葛\ufe00",
    "turned \u202eabc\u202c zero\u200bwidth \x1b[2J \x07 \ufeff \u2028 a\tb\xa0c \U000e0041",
]


@pytest.fixture(scope="module")
def lm(tiny_gpt2):
    return HuggingFaceLM.from_pretrained(tiny_gpt2)


def text_part(page):
    return page[page.index('<div class="text">') : page.index("<h2>What this page")]


def read_back(page):
    """Return the words that a reader sees, with the characters that are shown by their numbers."""
    shown = re.sub(r'<i class="hidden">U\+(\w+)</i>', lambda found: chr(int(found[1], 16)), text_part(page))
    return Page(shown).text.split()


def test_each_word_has_the_largest_rank_of_its_tokens(lm):
    text = "It  was a\n\nrain , . ; : I you the and of to in it Emma."
    ids = lm.tokenizer.encode(" ".join(text.split()))
    with torch.no_grad():
        logits = lm.logits(torch.tensor([[lm.tokenizer.end_of_text, *ids]]))[0][0, :-1]
    ranks = [1 + int((row > row[token]).sum()) for row, token in zip(logits, ids, strict=True)]
    starts = [number for number, token in enumerate(ids) if number == 0 or lm.tokenizer.decode([token])[0] == " "]
    ranks = [0 if lm.tokenizer.decode([token]) == " " else rank for rank, token in zip(ranks, ids, strict=True)]
    largest = [max(ranks[first:last]) for first, last in pairwise([*starts, len(ids)])]
    judge = Judge(LogLikelihood(lm, 60), 0.0, min_tokens=1)
    (found,) = judge.judge([text])
    words = words_of(judge.detector, text, found.windows)
    assert [text[word.start : word.end] for word in words] == text.split()
    assert [word.bin for word in words] == [sum(rank > edge for edge in (10, 100, 1000)) for rank in largest]
    assert len({word.bin for word in words}) > 1


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("wrap", [lambda detector: detector, with_normalization], ids=["as found", "normalised"])
def test_each_word_stands_on_the_page_as_it_was_found(text, wrap, lm):
    text = f"{text} " * 12
    judge = Judge(wrap(LogLikelihood(lm, 20)), -100.0, min_tokens=1)
    judge = replace(judge, calibration=replace(CALIBRATED.calibration, detector=judge.name, groups=low(judge)))
    page = page_of(judge, text, "a <b>.txt")
    assert read_back(page) == text.split()
    assert not Page(page).loaded and "<script" not in page and "a &lt;b&gt;.txt" in page
    assert set(text_part(page)) & set("\u202e\u200b\x1b\x07\ufeff\u2028") == set()
    assert page.count('<p dir="auto"') == sum(bool(line.strip()) for line in text.splitlines())
    assert "Called machine-written" in page and "<mark>" in text_part(page)
    words = words_of(judge.detector, text, judge.judge([text])[0].windows)
    assert {word.bin for word in words} & {0, 1, 2}


def low(judge):
    """Return the groups of a calibration under which each text is a machine's."""
    (group,) = CALIBRATED.calibration.groups.values()
    lengths = [replace(length, scores=(-1000.0,) * 60) for length in (*group.lengths, group.whole)]
    return {"": replace(group, lengths=tuple(lengths[:-1]), whole=replace(lengths[-1], tokens=10**6))}


def test_what_is_flagged_is_underlined_and_drawn():
    page = page_of(CALIBRATED, LONG, "text")
    (found,) = CALIBRATED.judge([LONG])
    flagged = [window for window in found.windows if window.is_flagged]
    marked = " ".join(re.findall("<mark>(.*?)</mark>", text_part(page)))
    assert marked == LONG[flagged[0].start : flagged[-1].end] and len(flagged) < len(found.windows)
    assert page.count("<line ") == len(found.windows) and page.count('class="flagged"') == len(flagged)
    assert "0.016: 0 of the 60 texts by people that were measured at its length score as high" in page
    assert "The rate of 5 % holds" in page
    assert 'class="w' not in text_part(page), "there is no language model that ranks words"


def test_a_page_says_what_it_does_not_know():
    short, blank, whole = (page_of(JUDGE, text, "text") for text in ("x x", " \n", "a b x c x"))
    for page in (short, blank):
        assert "No judgement" in page and "fewer than 5" in page and "Probability" not in page
    assert "It has no words." in blank and "Called machine-written" in whole and "50 % machine" in whole
    assert "Nobody measured it for this page" in whole
    assert "No judgement" in page_of(JUDGE, LONG, "text") and "<mark>" not in page_of(JUDGE, LONG, "text")


def test_only_a_causal_language_model_ranks_words():
    assert causal_model(JUDGE.detector) is None
    text = "a b"
    assert words_of(JUDGE.detector, text, JUDGE.judge([text])[0].windows) == [Word(0, 1, None), Word(2, 3, None)]


def test_a_page_is_light_and_dark():
    page = page_of(CALIBRATED, LONG, "text")
    style = re.search("<style>.*?</style>", page, re.DOTALL)[0]
    assert style.count("prefers-color-scheme: dark") == 2
    assert set(re.findall(r"var\((--[\w-]+)\)", page)) <= set(re.findall(r"(--[\w-]+):", style))
