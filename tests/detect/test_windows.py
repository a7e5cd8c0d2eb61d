"""Windows of documents: read whole, overlapping, and with offsets into the text as it was found."""

import random

import pytest
import torch

from lit_core.lm import HuggingFaceLM, smollm2
from lit_detect.detectors import EncoderDetector, Ensemble, EntityStatistics, GroverDetector, LogLikelihood
from lit_detect.detectors.base import Detector
from lit_detect.detectors.normalization import with_normalization
from lit_detect.windows import cut


class Words(Detector):
    """Reads ten words; its score is how often it finds ``x``."""

    name, max_tokens = "Words", 10

    def score(self, texts):
        return torch.tensor([text.split()[:10].count("x") for text in texts], dtype=torch.float64)

    def count_tokens(self, texts):
        return [len(text.split()) for text in texts]


@pytest.mark.parametrize(
    ("words", "starts"),
    [(0, [0]), (10, [0]), (11, [0, 1]), (15, [0, 5]), (16, [0, 5, 6]), (30, [0, 5, 10, 15, 20])],
)
def test_each_window_overlaps_half_and_the_last_one_is_full(words, starts):
    text = " ".join(f"w{number}" for number in range(words))
    expected = [(text.index(f"w{start}") if words else 0) for start in starts]
    windows = cut(Words(), text)
    assert [start for start, _ in windows] == expected
    assert all(len(text[start:end].split()) == min(words, 10) for start, end in windows)
    assert windows[-1].end == len(text)


def test_a_window_may_be_shorter_than_the_detector_reads():
    text = "a b c d e f g h"
    assert [text[start:end] for start, end in cut(Words(), text, 4)] == ["a b c d", "c d e f", "e f g h"]
    assert cut(Words(), text, 400) == [(0, len(text))]


ALPHABETS = [
    *(["a", "the", "house", "naïve", "unbelievably,", "3.14", "e\u0301\u0301", "-", "it's"],),
    *(
        ["שָׁלוֹם", "עולם", "مرحبا", "بالعالم", "\u200fabc\u200e"],
        ["今天天气很好", "我们", "。"],
        ["👩\u200d👩\u200d👧", "😀", "hi"],
    ),
    *(["x" * 70, "ab" * 90, "https://example.org/" + "q/" * 40, "b"], ["\u0421\u0430t", "\ufdfa", "ﬁ"]),
]
BLANKS = [" ", "  ", "\n", "\n\n", " \t", "\xa0", "\u2003", " " * 200]


def texts(seed, count):
    choose = random.Random(seed)
    for _ in range(count):
        words = choose.choice(ALPHABETS) + choose.choice(ALPHABETS)
        blanks = choose.choice([[" "], [" ", "\n"], BLANKS])
        parts = [choose.choice(words) + choose.choice(blanks) for _ in range(choose.randrange(120))]
        yield choose.choice(["", " "]) + "".join(parts)


@pytest.fixture(scope="module", params=["BPE", "word pieces", "normalised", "GROVER", "ensemble", "words"])
def detector(request, tiny_gpt2, tiny_bert):
    def lm():
        return HuggingFaceLM.from_pretrained(tiny_gpt2)

    build = {
        "BPE": lambda: LogLikelihood(lm(), max_tokens=40),
        "word pieces": lambda: EncoderDetector(tiny_bert, max_tokens=40),
        "normalised": lambda: with_normalization(LogLikelihood(lm(), max_tokens=40)),
        "GROVER": lambda: GroverDetector(lm(), max_tokens=40),
        "ensemble": lambda: Ensemble([LogLikelihood(lm(), max_tokens=30), EntityStatistics(), EntityStatistics(7)]),
        "words": lambda: EntityStatistics(8),
    }
    return build[request.param]()


def check(detector, text):
    windows = cut(detector, text)
    parts = [text[start:end] for start, end in windows]
    filled = detector.fill(parts)
    assert max(filled) <= 1 + 1e-9, "each window is read whole"
    if detector.fill([text])[0] <= 1:
        assert windows == [(0, len(text))]
        return
    assert all(part.strip() for part in parts)
    assert windows == sorted(windows) and len({*windows}) == len(windows)
    covered = {place for start, end in windows for place in range(start, end)}
    assert all(place in covered for place, character in enumerate(text) if not character.isspace())
    assert windows[-1].end == len(text.rstrip())
    return windows


def test_the_windows_of_any_text_are_read_whole_and_cover_it(detector):
    for text in texts(0, 60):
        check(detector, text)


def naive_end(detector, text, start):
    """The end of the longest window that starts at a place, by counting each that ends with a word."""
    ends = [place for place in range(start + 1, len(text) + 1) if place == len(text) or text[place].isspace()]
    return max((end for end in ends if detector.fill([text[start:end]])[0] <= 1), default=None)


def test_they_are_as_long_as_counting_each_would_make_them(detector):
    words, choose = ["a", "the", "it", "it's", "3.14", "house,"], random.Random(1)
    for _ in range(6):
        text = " ".join(choose.choice(words) for _ in range(90))
        windows = cut(detector, text)
        for (start, end), following in zip(windows, [*windows[1:], None], strict=True):
            naive = naive_end(detector, text, start)
            if isinstance(detector, Ensemble):  # what fills it is counted for all members at once
                assert 0 <= naive - end < 40
                continue
            assert end == naive
            if following is not None and following.end < len(text):
                assert 0.25 <= detector.fill([text[start : following.start]])[0] <= 0.75


def test_no_mark_is_divided_from_its_letter(detector):
    text = ("नमस्ते" * 20 + "e\u0301" * 60 + "👩\u200d👩\u200d👧" * 12) + " and" * 50
    starts = [start for start, _ in cut(detector, text)]
    assert len(starts) > 1 and not any(text[start] in "\u0301\u200d\u094d\u0947" for start in starts)


def test_a_mark_upon_mark_ends_nevertheless(detector):
    check(detector, "a" + "\u0301" * 3000)


def test_blanks_at_the_end_take_no_time(detector):
    text = "a " * 100 + " " * 1_000_000
    windows = cut(detector, text)
    assert windows[-1].end <= len(text) and all(text[start:end].strip() for start, end in windows)


@pytest.mark.slow
def test_windows_of_the_packaged_model():
    detector = LogLikelihood(smollm2(), max_tokens=100)
    for text in texts(2, 150):
        check(detector, text)
    long = " ".join(text for text in texts(3, 20))
    assert len(cut(detector, long)) > 20
