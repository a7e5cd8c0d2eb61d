"""Unicode normalisation: undoes what hides a text, leaves what languages need, and changes nothing twice."""

import random
import unicodedata

import pytest
from austen_pairs import passages
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonargparse import ArgumentParser

from lit_detect.language.normalize import NormalizeText, normalize_text, spans_before

#: RAID's look-alikes, by the Latin letter (Dugan et al. 2024, its homoglyph attack).
LOOK_ALIKES = {
    "a": "а", "A": "АΑ", "B": "ВΒ", "e": "е", "E": "ЕΕ", "c": "с", "p": "р", "K": "КΚ", "O": "ОΟ", "P": "РΡ",
    "M": "МΜ", "H": "НΗ", "T": "ТΤ", "X": "ХΧ", "C": "С", "y": "у", "o": "оο", "x": "х", "I": "ІΙ", "i": "і",
    "N": "Ν", "Z": "Ζ",
}  # fmt: skip

DANGEROUS = "aаeеοο x\u200b\u200c\u200d\ufe0f\u00ad\u0301\u0308\u00a0\u3000\t\n\r\u2028\u2029\x0b\x85\ufb01½Å…жяαΩ👩🚀ك\u0600\U000e0061-_1"  # noqa: E501


@settings(max_examples=500)
@given(st.text(st.sampled_from(DANGEROUS), max_size=30) | st.text(max_size=30))
def test_a_second_time_changes_nothing(text):
    once = normalize_text(text)
    assert normalize_text(once) == once


@given(st.lists(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1), max_size=20))
def test_plain_text_with_single_blanks_stays(words):
    assert normalize_text(" ".join(words)) == " ".join(words)
    assert normalize_text("\n\n".join(words)) == "\n\n".join(words)


@given(st.text(max_size=60))
def test_nothing_invisible_is_left(text):
    normal = normalize_text(text)
    assert not set(normal) & set("\u200b\ufeff\u2060\u00ad\u202e\u2066\x00\r\u2028\u2029\u00a0\u3000")
    assert "  " not in normal and "\n\n\n" not in normal
    assert normal == unicodedata.normalize("NFKC", normal)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_homoglyphs_of_the_attack_are_undone(share, seed):
    draw = random.Random(seed)
    for text in passages(10):
        attacked = "".join(
            draw.choice(LOOK_ALIKES[c]) if c in LOOK_ALIKES and draw.random() < share else c for c in text
        )
        assert attacked != text and normalize_text(attacked) == normalize_text(text)


def test_other_attacks_on_what_cannot_be_seen_are_undone():
    text = normalize_text(passages(1)[0])
    assert normalize_text("".join(f"{c}\u200b" for c in text)) == text
    assert normalize_text("\ufeff" + text.replace(" ", " \u00a0 ")) == text
    assert normalize_text(text.replace("e", "e\u00ad")) == text
    assert normalize_text("one\r\ntwo\u2028three\u2029four\n\n\n\n\nfive\x0bsix") == (
        "one\ntwo\nthree\n\nfour\n\nfive\nsix"
    )


@pytest.mark.parametrize(
    "text",
    [
        "Ça naïve coöperation, Škoda, Œuvre, Straße, ångström, Łódź, İstanbul ısı",
        "Мама мыла раму, а рука — оса. Хор, сон, рос.",
        "Ο ήλιος είναι ζεστός, το τρένο και η ώρα.",
        "і вона пішла в ліс; Ја сам овде; ұлт",
        "The Russian word оса means wasp, and the Greek τον is an article.",
        "نمی\u200cخواهم به خانه بروم",
        "क्\u200dष और श्री",
        "A rocket: 👩\u200d🚀, a heart: ❤\ufe0f.",
        "日本語の文章です。漢字とかな。",
        "한국어 문장입니다.",
        "α-helix, µ becomes μ".replace("µ", "μ"),
    ],
)
def test_what_languages_need_stays(text):
    assert normalize_text(text) == text


def test_words_of_look_alikes_alone_follow_the_mixed_words_around_them():
    assert normalize_text("\u0430 sec\u043end c\u0430t") == "a second cat"
    assert normalize_text("Мама ела суп, \u0430 c\u0430t slept.") == "Мама ела суп, \u0430 cat slept."
    assert normalize_text("Катя isn't Каtя") == "Катя isn't Каtя", "no Latin word with look-alikes"


def test_the_transform_is_a_class_that_yaml_can_name():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(NormalizeText, "transform")
    parsed = parser.instantiate(parser.parse_object({"transform": {"class_path": "lit_detect.language.NormalizeText"}}))
    assert parsed.transform("a\u200bb") == "ab"


@pytest.mark.parametrize("joiner", "\u200c\u200d\ufe0f")
@pytest.mark.parametrize("end", ["", "م"])
def test_a_part_of_joiners_alone_stands_between_its_neighbours(joiner, end):
    text = "\u200bم" + joiner * 5 + end
    read = normalize_text(text)
    assert read == text[1:], "the script needs joiners"
    assert spans_before(text, read, [(0, 2), (2, 5), (5, len(read))]) == [(1, 2), (2, 7), (7, 8) if end else (2, 7)]
