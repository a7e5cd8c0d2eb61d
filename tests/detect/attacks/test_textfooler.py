import numpy as np
import pytest
import torch

from lit_core.errors import UserError
from lit_detect.attacks import TextFooler, apply_edits
from lit_detect.detectors.base import ZeroShotDetector
from lit_detect.language.parts_of_speech import Tagger
from lit_detect.language.similarity import Similarity
from lit_detect.language.synonyms import Synonyms


class ByWords(ZeroShotDetector):
    """The sum of numbers that words have."""

    name, max_tokens = "ByWords", None

    def __init__(self, worth):
        super().__init__()
        self.worth, self.asked, self.largest = worth, [], 0

    def score(self, texts):
        self.asked += texts
        self.largest = max(self.largest, len(texts))
        return torch.tensor([sum(self.worth.get(word, 0.0) for word in text.split()) for text in texts]).double()

    def count_tokens(self, texts):
        return [len(text.split()) for text in texts]


class Table(Synonyms):
    name, thresholds = "Table", {"k": 3}

    def __init__(self, table):
        self.table = table

    def candidates(self, word):
        return [(other, 0.9) for other in self.table.get(word, [])]

    def __contains__(self, word):
        return word in self.table


class AllNouns(Tagger):
    name = "AllNouns"

    def tag(self, sentences):
        return [["NOUN"] * len(words) for words in sentences]


class ByTable(Similarity):
    name = "ByTable"

    def __init__(self, values):
        self.values = values

    def __call__(self, first, others):
        return np.array([min([1.0, *(self.values.get(word, 1.0) for word in other.split())]) for other in others])


WORTH = {"alpha": 3.0, "beta": 2.0, "gamma": 1.0, "weak": 0.5, "low": 0.2, "none": 0.0, "worse": 5.0, "minus": -9.0}


def attack(table, alike=None, **options):
    detector = ByWords(WORTH)
    return detector, TextFooler(detector, Table(table), AllNouns(), ByTable(alike or {}), **options)


def test_a_long_text_is_attacked_wherever_a_window_gives_it_away():
    detector, fooler = attack({"alpha": ["none"]}, threshold=1.0)
    detector.max_tokens = 4
    assert fooler("one two three four five six alpha eight", 0).text == "one two three four five six none eight"


def test_the_most_important_word_becomes_what_lowers_the_score_most():
    detector, fooler = attack({"alpha": ["weak", "low", "worse"], "beta": ["low"], "gamma": ["worse"]}, threshold=0.01)
    found = fooler("gamma beta alpha", 0)
    assert found.text == "gamma low low"  # gamma's only synonym makes it worse
    # the original, each word left out, then alpha's three, beta's one, gamma's one
    assert found.queries == len(detector.asked) == 1 + 3 + 3 + 1 + 1
    assert set(detector.asked[1:4]) == {" beta alpha", "gamma  alpha", "gamma beta "}
    assert found.meta["score_before"] == 6 and found.meta["score_after"] == pytest.approx(1.4)
    assert apply_edits("gamma beta alpha", found.edits) == found.text


def test_it_ends_with_the_most_alike_of_those_that_mislead():
    table = {"alpha": ["none", "minus", "low"], "beta": ["none"]}
    _, fooler = attack(table, alike={"none": 0.6, "minus": 0.7, "low": 0.9}, threshold=2.15)
    assert fooler("alpha beta", 0).text == "minus beta"  # low gives 2.2; minus is more alike than none
    _, fooler = attack(table, alike={"none": 0.6, "minus": 0.7, "low": 0.9}, threshold=2.5)
    found = fooler("alpha beta", 0)
    assert found.text == "low beta" and found.meta["score_after"] < 2.5


def test_a_text_that_is_not_detected_costs_one_query():
    detector, fooler = attack({"alpha": ["none"]}, threshold=4)
    found = fooler("alpha none", 0)
    assert (found.text, found.queries, detector.asked) == ("alpha none", 1, ["alpha none"])


@pytest.mark.parametrize("most", range(1, 12))
def test_the_cap_is_never_passed(most):
    table = {"alpha": ["weak", "low", "worse"], "beta": ["low"], "gamma": ["worse"]}
    detector, fooler = attack(table, threshold=-1, max_queries=most)
    found = fooler("gamma beta alpha", 0)
    assert found.queries == len(detector.asked) == min(most, 9) and found.meta["max_queries"] == most
    if most <= 4:
        assert found.text == "gamma beta alpha"
    assert found.meta["score_after"] == ByWords(WORTH).score([found.text]).item()


def test_dissimilar_synonyms_are_not_asked_for_and_calls_are_batched():
    detector, fooler = attack({"alpha": ["weak", "low"]}, alike={"weak": 0.4}, threshold=-1, batch_size=2)
    assert fooler("alpha alpha alpha", 0).queries == 1 + 3 + 3
    assert not any("weak" in text for text in detector.asked) and detector.largest == 2


def test_empty_texts_pass():
    _, fooler = attack({"alpha": ["none"]}, threshold=-1)
    assert fooler("", 0).text == "" and fooler("\n", 0).text == "\n"


@pytest.mark.parametrize("options", [{"max_queries": 0}, {"batch_size": 0}])
def test_wrong_arguments_are_one_sentence(options):
    with pytest.raises(UserError, match=next(iter(options))):
        attack({}, **options)
