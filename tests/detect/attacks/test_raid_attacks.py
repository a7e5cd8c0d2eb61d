"""RAID's attacks against their written definitions, each applied here in another way than in the package."""

import inspect
import re
import unicodedata
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_language_models import TEXTS, causal, masked

import lit_detect.attacks
from lit_core.errors import UserError
from lit_detect.attacks import (
    AlternativeSpelling,
    ArticleDeletion,
    Attack,
    EntitySwap,
    Homoglyph,
    InsertParagraphs,
    MaskedSynonym,
    Number,
    Paraphrase,
    PerplexityMisspelling,
    UpperLower,
    Whitespace,
    ZeroWidthSpace,
    apply_edits,
)
from lit_detect.attacks.alternative_spelling import british
from lit_detect.attacks.homoglyph import GLYPHS
from lit_detect.attacks.perplexity_misspelling import misspellings
from lit_detect.language.word_vectors import WordVectors

TEXT = (
    "The color of an apple a day is the best, said Mr. Bennet in 1813. It cost 3.50 or 12 pounds! Did a theater "
    "center organize the show? Neighbors went to the 2nd house: the old one. Then they left."
)
#: Those that change a share of a text's spans and need nothing else.
PLAIN = [
    part
    for part in map(vars(lit_detect.attacks).get, lit_detect.attacks.__all__)
    if inspect.isclass(part)
    and issubclass(part, Attack)
    and "fraction" in (parameters := inspect.signature(part).parameters)
    and all(parameter.default is not parameter.empty for parameter in parameters.values())
]


def test_attacks_without_models_are_found():
    assert {Number, Whitespace, EntitySwap} < set(PLAIN) and not {MaskedSynonym, PerplexityMisspelling} & set(PLAIN)


@pytest.mark.parametrize("attack", PLAIN)
@settings(max_examples=25, deadline=None)
@given(text=st.text(alphabet="aA the.12! \n\té😀İß", max_size=80) | st.text(max_size=60), seed=st.integers(0, 5))
def test_edits_give_the_text_and_nothing_changes_elsewhere(attack, text, seed):
    found = attack()(text, seed)
    assert apply_edits(text, found.edits) == found.text
    assert all(text[edit.start : edit.end] == edit.before for edit in found.edits)
    ends = [(edit.start, edit.end) for edit in found.edits]
    assert all(a[1] <= b[0] for a, b in pairwise(ends))
    assert attack()(text, seed) == found


@pytest.mark.parametrize("attack", PLAIN)
def test_texts_without_places_pass_and_fractions_are_checked(attack):
    for text in ("", "\n", "…"):
        if attack is not ZeroWidthSpace or not text:
            assert attack()(text, 0).text == text
    assert attack(fraction=0)(TEXT, 0).text == TEXT
    with pytest.raises(UserError, match=r"fraction is 1\.5"):
        attack(fraction=1.5)


@pytest.mark.parametrize("attack", [ArticleDeletion, Homoglyph, InsertParagraphs, Number, UpperLower])
def test_seeds_differ(attack):
    assert len({attack(fraction=0.5)(TEXT, seed).text for seed in range(8)}) > 1


def test_homoglyphs_look_alike():
    found = Homoglyph()(TEXT, 1).text
    assert len(found) == len(TEXT) and len(GLYPHS) == 22
    for before, after in zip(TEXT, found, strict=True):
        if before in "ABCEHIKMNOPTXZaceiopxy":
            script = unicodedata.name(after).split()[0]
            assert script in ("CYRILLIC", "GREEK") and after in GLYPHS[before]
            assert ("CAPITAL" in unicodedata.name(after)) == before.isupper()
        else:
            assert after == before
    assert len(Homoglyph(fraction=0.5)(TEXT, 1).edits) == sum(sign in GLYPHS for sign in TEXT) // 2


def test_a_zero_width_space_stands_behind_each_character():
    assert ZeroWidthSpace()("ab c", 0).text == "a\u200bb\u200b \u200bc\u200b"


def test_five_percent_of_first_letters_change_their_case():
    words = " ".join(["word", "Word"] * 50)
    edits = UpperLower()(words, 0).edits
    assert len(edits) == 5 and all(edit.after == edit.before.swapcase() for edit in edits)
    assert all(edit.start % 5 == 0 for edit in edits)
    assert UpperLower(fraction=1)("don't Stop 2nd", 0).text == "Don't stop 2Nd"


def test_spaces_are_added_after_parts_with_replacement():
    text = " ".join(["a"] * 50)
    found = Whitespace()(text, 0)
    assert len(found.text) == len(text) + 10 and found.text.split() == text.split()
    assert any(len(edit.after) > 1 for edit in Whitespace(fraction=1)(text, 0).edits), "drawn with replacement"
    assert Whitespace(fraction=1)("word", 0).text == "word "


def test_articles_between_spaces_are_deleted_with_the_space_before():
    every = TEXT
    for article in ("a", "an", "the"):
        every = every.replace(f" {article} ", " ")
    assert ArticleDeletion(fraction=1)(TEXT, 0).text == every
    assert ArticleDeletion(fraction=1)("to a the end an", 0).text == "to end an"
    assert len(ArticleDeletion()(TEXT, 0).edits) == (len(TEXT.split(" ")) - len(every.split(" "))) // 2


def test_numbers_keep_their_length_and_point():
    found = Number(fraction=1)(TEXT, 0)
    shape = [re.sub(r"\d", "0", text) for text in (TEXT, found.text)]
    assert shape[0] == shape[1] and found.text != TEXT
    assert [edit.before for edit in found.edits] == ["1813.", "3.50", "12", "2"]  # as RAID's own pattern
    assert len(Number()(TEXT, 0).edits) == 2


def test_half_of_the_gaps_between_sentences_become_paragraphs():
    found = InsertParagraphs(fraction=1)(TEXT, 0).text
    assert found.split("\n\n")[1].startswith("It cost") and found.count("\n\n") == 4
    assert len(InsertParagraphs()(TEXT, 0).edits) == 2


def test_american_words_become_british_in_their_case():
    found = AlternativeSpelling()("The COLOR of Centers, organizing colorful traveling neighbors' coloration", 0)
    assert found.text == "The COLOUR of Centres, organising colourful travelling neighbours' coloration"
    assert len(british()) > 900 and all(a != b for a, b in british().items())


def test_the_likeliest_words_are_misspelled(tiny_gpt2):
    model = causal(tiny_gpt2)
    text = (
        "I believe that they received an address which was separate from their business and which was definitely here"
    )
    known = misspellings()
    assert len(known) > 350 and all(word not in wrong and wrong for word, wrong in known.items())
    places = [word for word in text.split() if word in known]
    found = PerplexityMisspelling(model)(text, 0)
    assert len(found.edits) == int(len(text.split()) * 0.2) < len(places)
    ids = [model.tokenizer.end_of_text]
    likely = {}
    for number, word in enumerate(text.split()):
        own = model.tokenizer.encode(f" {word}" if number else word)
        logits = model.module(torch.tensor([ids + own])).logits[0].detach().double().log_softmax(-1)
        likely[number, word] = sum(float(logits[len(ids) - 1 + i, token]) for i, token in enumerate(own))
        ids += own
    best = sorted((key for key in likely if key[1] in known), key=lambda key: -likely[key])[: len(found.edits)]
    assert sorted(text[: edit.start].count(" ") for edit in found.edits) == sorted(number for number, _ in best)
    assert all(edit.after in known[edit.before] for edit in found.edits)
    every = PerplexityMisspelling(model, fraction=1)("Believe it.", 0)
    assert every.text in ("Beleive it.", "Belive it.")


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    """All words of the tiny tokenizer, in two directions."""
    path = tmp_path_factory.mktemp("vectors") / "v.txt"
    words = ["house", "cat", "father", "mother", "letter", "lady", "time", "day", "room", "world"]
    path.write_text("".join(f"{word} {1 if i % 2 else 0.9} 0.{i}\n" for i, word in enumerate(words)))
    return WordVectors(str(path), min_cosine=0.0)


def test_mask_filling_takes_the_likeliest_word_that_passes(tiny_bert, vectors):
    model = masked(tiny_bert)
    text = "The father saw a house near the time of day."
    found = MaskedSynonym(model, vectors, min_cosine=-1.0, min_probability=0.0)(text, 0)
    assert apply_edits(text, found.edits) == found.text
    tokenizer = model.tokenizer
    for edit in found.edits:
        before, after = (tokenizer.encode(t, add_special_tokens=False) for t in (text[: edit.start], text[edit.end :]))
        row = [tokenizer.cls_token_id, *before, tokenizer.mask_token_id, *after, tokenizer.sep_token_id]
        top = model.module(torch.tensor([row])).logits[0, 1 + len(before)].topk(20).indices.tolist()
        words = [tokenizer.decode([token]) for token in top]
        near = [word for word in words if word.isalpha() and word != edit.before and word.lower() in vectors]
        assert edit.after == near[0]
    assert MaskedSynonym(model, vectors, min_probability=1.0)(text, 0).text == text


def test_a_paraphrase_replaces_whole_sentences(tmp_path, tiny_gpt2):
    from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

    folder = str(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tiny_gpt2)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(folder)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    ids = {"pad_token_id": 0, "eos_token_id": 0, "decoder_start_token_id": 0}
    T5ForConditionalGeneration(T5Config(vocab_size=len(tokenizer), **sizes, **ids)).save_pretrained(folder)
    attack = Paraphrase(folder, template="{before} || {text}", sentences=2, max_new_tokens=8)
    found = attack(TEXT, 0)
    assert apply_edits(TEXT, found.edits) == found.text != TEXT and found == attack(TEXT, 0)
    assert found.edits[0].before.endswith("12 pounds!")
    assert attack("", 0).text == ""
    with pytest.raises(UserError, match="template"):
        Paraphrase(folder, template="no place")
    with pytest.raises(UserError, match="cannot be loaded"):
        Paraphrase(str(tmp_path / "none"))(TEXT, 0)


def test_all_plain_attacks_pass_short_texts():
    for attack in PLAIN:
        for text in TEXTS:
            found = attack()(text, 0)
            assert apply_edits(text, found.edits) == found.text
