from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_core.errors import UserError
from lit_detect.language.entities import Extractor, extract_entities, split_sentences


def names(text):
    return [(mention.sentence, mention.text) for mention in extract_entities(text)]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", []),
        (" \n ", []),
        ("no stop", ["no stop"]),
        ("One. Two! Three? Four… Five", ["One.", "Two!", "Three?", "Four…", "Five"]),
        ('"Stop!" he said. "Go." She went.', ['"Stop!" he said.', '"Go."', "She went."]),
        ("Mr. Darcy met J. K. Rowling, i.e. Joanne, in St. Ives.", None),
        ("It costs 3.5 dollars at example.com today.", None),
        ("A wrapped\nline goes on.\nAnother.", ["A wrapped\nline goes on.", "Another."]),
        ("A heading\n\nthe text", ["A heading", "the text"]),
        ("  blanks around.  (In brackets.)  ", ["blanks around.", "(In brackets.)"]),
        ("Between you and I. She left.", ["Between you and I.", "She left."]),
        ("Really?! Yes...", ["Really?!", "Yes..."]),
    ],
)
def test_sentences(text, sentences):
    assert [text[start:end] for start, end in split_sentences(text)] == ([text] if sentences is None else sentences)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Yesterday Mr. Darcy left London. Darcy was proud.", [(0, "Darcy"), (0, "London"), (1, "Darcy")]),
        ("London is wet.", []),  # any word would have a capital there
        ("London is wet. He likes London.", [(0, "London"), (1, "London")]),
        ("Barack Obama's dog barked.", [(0, "Barack Obama")]),
        ("Poor Fanny wept. The poor girl!", [(0, "Fanny")]),
        ("However, the Bank of England met the Lord of the Rings.", [(0, "Bank of England"), (0, "Lord of the Rings")]),
        (
            "NASA and the U.S. sent Apollo-11 to J. K. Rowling.",
            [(0, name) for name in ("NASA", "U.S.", "Apollo-11", "J. K. Rowling")],
        ),
        ("She said, “The Hague is far.”", [(0, "Hague")]),
        ("She said, “Weather is fine.”", []),
        (
            "On Monday I met Ludwig van Beethoven, Anna, and Bob.",
            [(0, "Ludwig van Beethoven"), (0, "Anna"), (0, "Bob")],
        ),
        ("A New Hope\n\nshe saw Leia.", [(1, "Leia")]),
        ("In 2019 the 3 men paid 5 dollars.", []),
        ("Es fuhr nach Zürich und Åbo.", [(0, "Zürich"), (0, "Åbo")]),
        ("the O’Neill’s house, AT&T", [(0, "O’Neill"), (0, "AT&T")]),
    ],
)
def test_rules(text, expected):
    assert names(text) == expected


@given(st.text(alphabet="Aab .!?\n\"'“I’-1é", max_size=60))
def test_all_characters_are_in_one_sentence_and_mentions_in_theirs(text):
    spans = split_sentences(text)
    assert "".join("".join(text[start:end] for start, end in spans).split()) == "".join(text.split())
    assert all(a[1] <= b[0] for a, b in pairwise(spans))
    end = 0
    for mention in extract_entities(text):
        start_of, end_of = spans[mention.sentence]
        assert mention.text == text[mention.start : mention.end] != ""
        assert start_of <= mention.start < mention.end <= end_of and mention.start >= end
        end = mention.end


def test_long_and_odd_texts_take_linear_time():
    for text in ("a" * 10**6, "A. " * 10**5, '."' * 10**5, "😀" * 10**6, "\n" * 10**6, "A " * 10**5):
        extract_entities(text)


@pytest.fixture(scope="module")
def spacy_folder(tmp_path_factory):
    spacy = pytest.importorskip("spacy")
    pipeline = spacy.blank("en")
    patterns = [("GPE", "London"), ("PERSON", "Darcy"), ("DATE", "Monday"), ("ORG", "Acme. Inc")]
    pipeline.add_pipe("entity_ruler", name="ner").add_patterns([{"label": a, "pattern": b} for a, b in patterns])
    folder = tmp_path_factory.mktemp("spacy")
    pipeline.to_disk(folder)
    return str(folder)


def test_spacy_finds_names_in_our_sentences(spacy_folder):
    text = "London! On Monday Darcy came.\nDarcy left."
    found = Extractor(spacy_folder)(text)
    assert [(m.sentence, m.text) for m in found] == [(0, "London"), (1, "Darcy"), (2, "Darcy")]
    assert all(text[m.start : m.end] == m.text for m in found)


def test_a_missing_pipeline_is_one_sentence(tmp_path):
    spacy = pytest.importorskip("spacy")
    with pytest.raises(UserError, match="null for rules"):
        Extractor("no_such_pipeline")
    spacy.blank("en").to_disk(tmp_path)
    with pytest.raises(UserError, match="has no ner"):
        Extractor(str(tmp_path))


def test_rules_are_the_default():
    text = "He saw Anna."
    assert Extractor()(text) == extract_entities(text) and Extractor().name == "rules"
