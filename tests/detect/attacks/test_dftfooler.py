import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

from published_dftfooler import Published, causal_reader, masked_reader
from tiny_language_models import TEXTS, causal, masked

from lit_core.errors import UserError
from lit_core.lm.language_model import LanguageModel
from lit_core.lm.tokenizer import Tokenizer
from lit_detect.attacks import (
    DFTFooler,
    RandomPerturbation,
    apply_edits,
    substitution_similarities,
)
from lit_detect.attacks.causal_scores import CausalScorer
from lit_detect.attacks.editable_text import EditableText
from lit_detect.attacks.masked_scores import MaskedScorer
from lit_detect.language.parts_of_speech import RuleTagger, Tagger
from lit_detect.language.similarity import Similarity, WordOverlap, calibrate_threshold
from lit_detect.language.synonyms import Synonyms
from lit_detect.language.wordnet import EmbeddedSynonyms


@pytest.fixture(scope="module")
def gpt2(tiny_gpt2):
    return causal(tiny_gpt2)


@pytest.fixture(scope="module")
def bert(tiny_bert):
    return masked(tiny_bert)


def overlap(first, other):
    return float(WordOverlap()(first, [other])[0])


@pytest.mark.parametrize("likely", [0.01, 1.0])
@pytest.mark.parametrize("text", TEXTS)
def test_faithful_is_the_published_loop_with_a_causal_model(gpt2, text, likely):
    attack = DFTFooler(gpt2, max_probability=likely, max_tokens=40, faithful=True)
    reader = causal_reader(gpt2.module, gpt2.tokenizer.encode, gpt2.tokenizer.end_of_text, limit=40)
    published = Published(reader, EmbeddedSynonyms(), RuleTagger(), overlap, max_probability=likely)
    found = attack(text, 0)
    assert found.text == published(text)
    assert apply_edits(text, found.edits) == found.text


@pytest.mark.parametrize(("text", "likely"), [(TEXTS[0], 0.01), (TEXTS[1], 1.0), (TEXTS[2], 1.0), (TEXTS[3], 1.0)])
def test_faithful_is_the_published_loop_with_a_masked_model(bert, text, likely):
    attack = DFTFooler(bert, max_probability=likely, replacements=4, faithful=True)
    reader = masked_reader(bert.module, bert.tokenizer)
    published = Published(reader, EmbeddedSynonyms(), RuleTagger(), overlap, 4, max_probability=likely)
    found = attack(text, 0)
    assert found.text == published(text)
    assert apply_edits(text, found.edits) == found.text


def test_the_comparison_sees_replacements(gpt2, bert):
    for model in (gpt2, bert):
        assert len(DFTFooler(model, max_probability=1.0, faithful=True)(TEXTS[0], 0).edits) >= 5


# Documents traced by hand. The bigram model below says how likely each word is after the one before it.


class Bigrams(LanguageModel):
    """A language model over bytes that makes one word after a space likelier than others: hand-made numbers."""

    def __init__(self, likely):
        self.tokenizer = Tokenizer.train_bpe([f" {word}" for word in likely for _ in range(3)] + list(likely) * 3, 2000)
        self.module = torch.nn.Linear(1, 1)
        self.name = "Bigrams"
        self.likely = {}
        for word, probability in likely.items():
            for form in (word, f" {word}"):
                ids = self.tokenizer.encode(form)
                assert len(ids) == 1, f"{form!r} must be one token"
                self.likely[ids[0]] = probability

    def new_cache(self):
        return None

    def keep_rows(self, cache, rows):
        return cache

    def logits(self, ids_BS, cache=None, *, mask=None, last_only=False):
        probabilities = torch.full((self.tokenizer.vocab_size,), 1e-9)
        for token, probability in self.likely.items():
            probabilities[token] = probability
        probabilities[self.tokenizer.end_of_text] = 1 - probabilities.sum()
        logits = probabilities.log().expand(*ids_BS.shape, -1)
        return (logits[:, -1:] if last_only else logits), cache


class Table(Synonyms):
    name, thresholds = "Table", {}

    def __init__(self, table):
        self.table = table

    def candidates(self, word):
        return [(other, 0.9) for other in self.table.get(word, [])]

    def __contains__(self, word):
        return word in self.table


class Nouns(Tagger):
    """All words are nouns, but those that end in -ly."""

    name = "Nouns"

    def tag(self, sentences):
        return [["ADV" if word.endswith("ly") else "NOUN" for word in words] for words in sentences]


class Seen(Similarity):
    """Notes what is compared."""

    name = "Seen"

    def __init__(self, refused=()):
        self.refused, self.seen = refused, []

    def __call__(self, first, others):
        self.seen += [(first, other) for other in others]
        return np.array([0.0 if set(self.refused) & set(other.split()) else 1.0 for other in others])


LIKELY = {"cat": 0.09, "dog": 0.05, "tree": 0.02, "house": 0.002, "hut": 0.001, "barn": 0.004, "badly": 0.0005}


def traced(text, table, faithful=True, likely=LIKELY, similarity=None, **options):
    attack = DFTFooler(Bigrams(likely), Table(table), Nouns(), similarity or Seen(), faithful=faithful, **options)
    return attack(text, 0)


def changes(found):
    return [(edit.before, edit.after) for edit in found.edits]


def test_the_likeliest_word_comes_first_and_gets_the_least_likely_synonym():
    table = {"cat": ["house", "hut", "barn"], "dog": ["house"]}
    found = traced("dog cat", table, replacements=1)
    assert found.text == "dog hut"  # cat 0.09 before dog 0.05; hut 0.001 < house 0.002 < barn 0.004
    assert traced("dog cat", table).text == "house hut"


def test_synonyms_that_are_not_unlikely_cost_no_replacement():
    table = {"cat": ["dog", "tree"], "dog": ["tree"], "tree": ["hut"]}
    assert changes(traced("cat dog tree", table, replacements=1)) == [("tree", "hut")]  # tree 0.02 is above 0.01


def test_quirk_capitals_and_punctuation_are_never_replaced_unless_mended():
    table = {"cat": ["hut"], "dog": ["house"]}
    text = "Cat, dog. cat"
    assert traced(text, table).text == "Cat, dog. hut"
    assert traced(text, table, faithful=False).text == "Hut, house. hut"


def test_quirk_runs_of_spaces_become_one_unless_mended():
    table = {"cat": ["hut"]}
    text = "  a  cat \n b "
    found = traced(text, table)
    assert found.text == "a hut \n b" and apply_edits(text, found.edits) == found.text
    assert traced(text, table, faithful=False).text == "  a  hut \n b "


def test_quirk_windows_are_compared_with_the_text_as_it_is_by_then_unless_mended():
    table = {"cat": ["hut"], "dog": ["house"]}
    for faithful, before in ((True, "hut dog"), (False, "cat dog")):
        seen = Seen()
        assert traced("cat dog", table, faithful, similarity=seen).text == "hut house"
        assert seen.seen == [("cat dog", "hut dog"), (before, "hut house")]


def test_quirk_the_probability_is_that_of_the_first_token_unless_mended():
    # "hutcat" is two tokens, the first of them as likely as hut; mended it is less likely by the factor of cat
    table = {"cat": ["house", "barnhouse"]}
    likely = LIKELY | {"barn": 0.004, "house": 0.002}
    assert Bigrams(likely).tokenizer.encode(" barnhouse") != Bigrams(likely).tokenizer.encode(" barn")
    assert traced("a cat", table, likely=likely).text == "a house"  # 0.002 < 0.004
    assert traced("a cat", table, faithful=False, likely=likely).text == "a barnhouse"  # 0.004 * 0.002


def test_quirk_probabilities_are_rounded_to_five_digits_so_that_the_first_of_equals_wins_unless_mended():
    likely = LIKELY | {"house": 3e-6, "hut": 2e-6}
    table = {"cat": ["house", "hut"]}
    assert traced("a cat", table, likely=likely).text == "a house"  # both 0.00000
    assert traced("a cat", table, faithful=False, likely=likely).text == "a hut"


def test_quirk_words_past_the_limit_are_not_read_unless_mended():
    table = {"cat": ["hut"], "dog": ["house"]}
    text = "tree dog tree cat"
    assert traced(text, table, max_tokens=2).text == "tree house tree cat"
    assert traced(text, table, faithful=False, max_tokens=2).text == "tree house tree hut"


def test_parts_of_speech_and_similarity_filter():
    table = {"cat": ["badly", "hut", "house"]}
    assert traced("a cat", table).text == "a hut"  # badly, 0.0005, is an adverb
    assert traced("a cat", table, similarity=Seen(["hut"])).text == "a house"


def test_quirk_a_word_has_the_part_of_speech_of_the_whole_text_and_a_synonym_that_of_its_window_unless_mended():
    class ByPlace(Nouns):
        def tag(self, sentences):
            return [["ADJ" if place >= 5 else "NOUN" for place, _ in enumerate(words)] for words in sentences]

    text = "tree tree tree tree tree tree tree cat tree tree tree tree"  # the eighth of 12: 5th of its window
    table = {"cat": ["hut"]}

    def run(faithful):
        return DFTFooler(Bigrams(LIKELY), Table(table), ByPlace(), Seen(), faithful=faithful)(text, 0).text

    assert run(True) == text  # ADJ in the whole text, NOUN in the window
    assert run(False) == text.replace("cat", "hut")


def test_quirk_a_masked_model_sees_padding_and_never_the_end(bert):
    document = EditableText.of_parts("cat dog")
    scorer = MaskedScorer(bert, document, 512, faithful=True)
    row, places = scorer._released_window([7, 8, 9], 1, 2)
    pad, mask = bert.tokenizer.pad_token_id, bert.tokenizer.mask_token_id
    assert places == [21] and len(row) == 41
    assert row == [pad] * 19 + [bert.tokenizer.cls_token_id, 7, mask, 9] + [pad] * 18
    mended, at = MaskedScorer(bert, document, 512, faithful=False)._window([7, 8, 9], 0, 2)
    assert mended == [bert.tokenizer.cls_token_id, mask, mask, 9, bert.tokenizer.sep_token_id] and at == [1, 2]


# Probabilities


def test_mended_probabilities_are_those_of_whole_words_in_the_whole_text(gpt2):
    text = TEXTS[1]
    document = EditableText.of_words(text)
    found = CausalScorer(gpt2, document, 20, faithful=False).all_words()
    ids = gpt2.tokenizer.encode(text)
    pieces = [gpt2.tokenizer.encode(piece) for piece in _cut(document)]
    assert [token for piece in pieces for token in piece] == ids, "cutting the text changes no token"
    log_probs = np.zeros(len(ids))
    for i in range(len(ids)):  # the window that ends with it, 20 tokens at most, overlapping by half
        begin = 0 if i < 20 else (i - 20) // 10 * 10 + 10
        context = torch.tensor([[gpt2.tokenizer.end_of_text, *ids[begin:i]]])
        log_probs[i] = gpt2.module(context).logits[0, -1].double().log_softmax(-1)[ids[i]].item()
    at, wanted = 0, []
    for number, piece in enumerate(pieces):
        if number % 2:
            wanted.append(log_probs[at : at + len(piece)].sum())
        at += len(piece)
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def _cut(document):
    for i, word in enumerate(document.words):
        gap = document.gaps[i]
        space = " " if gap.endswith(" ") else ""
        yield gap[: len(gap) - len(space)]
        yield space + word
    yield document.gaps[-1]


def test_choices_are_what_one_pass_for_each_of_them_says_also_after_replacements(gpt2):
    document = EditableText.of_words(TEXTS[0])
    scorer = CausalScorer(gpt2, document, 512, faithful=False)
    words = ["house", "unbelievable", "extraordinarily", "cat"]

    def wanted(place):
        before = " ".join(document.words[max(0, place - 7) : place])
        context = [gpt2.tokenizer.end_of_text, *gpt2.tokenizer.encode(before)]
        for word in words:
            ids = gpt2.tokenizer.encode(f" {word}" if place else word)
            logits = gpt2.module(torch.tensor([context + ids])).logits[0].detach().double().log_softmax(-1)
            yield float(sum(float(logits[len(context) - 1 + i, token]) for i, token in enumerate(ids)))

    np.testing.assert_allclose(np.log(scorer.choices(9, words, [12, 3, 20])), list(wanted(9)), rtol=1e-4)
    document.words[9] = "hut"
    scorer.replaced(9)
    for place in (12, 3, 0, 20):
        np.testing.assert_allclose(np.log(scorer.choices(place, words, [])), list(wanted(place)), rtol=1e-4)


def test_a_masked_model_scores_words_with_all_their_tokens_masked(bert):
    document = EditableText.of_words("the old house was large")
    found = MaskedScorer(bert, document, 512, faithful=False).choices(2, ["cat", "unbelievable"], [])
    tokenizer = bert.tokenizer
    for word, probability in zip(["cat", "unbelievable"], found, strict=True):
        ids = tokenizer.encode(word, add_special_tokens=False)
        left, right = tokenizer.encode("the old", add_special_tokens=False), tokenizer.encode("was large")[1:]
        row = [tokenizer.cls_token_id, *left, *[tokenizer.mask_token_id] * len(ids), *right]
        logits = bert.module(torch.tensor([row])).logits[0].detach().double().log_softmax(-1)
        wanted = sum(logits[1 + len(left) + i, token] for i, token in enumerate(ids))
        assert probability == pytest.approx(float(wanted.exp()), rel=1e-4)


# Edits


LETTERS = st.text(alphabet="ab Tthehouseold.,'\n-é😀", max_size=60)


@settings(max_examples=12, deadline=None)
@given(text=LETTERS | st.text(max_size=40), seed=st.integers(0, 9), faithful=st.booleans())
def test_edits_give_the_text_and_equal_seeds_equal_texts(gpt2, text, seed, faithful):
    for attack in (RandomPerturbation(faithful=faithful), DFTFooler(gpt2, max_probability=1.0, faithful=faithful)):
        found = attack(text, seed)
        assert apply_edits(text, found.edits) == found.text == attack(text, seed).text
        assert all(text[edit.start : edit.end] == edit.before for edit in found.edits)
        assert [edit.start for edit in found.edits] == sorted(edit.start for edit in found.edits)


def test_random_perturbation_takes_the_most_similar_survivor_of_random_words():
    table = {"cat": ["badly", "hut", "house"], "dog": ["house"], "tree": ["barn"]}
    attack = RandomPerturbation(Table(table), Nouns(), Seen(), replacements=1)
    texts = {attack("cat dog tree", seed).text for seed in range(20)}
    assert texts == {"hut dog tree", "cat house tree", "cat dog barn"}
    assert attack("cat dog tree", 3).meta["replacements"] == 1
    assert RandomPerturbation(Table(table), Nouns(), Seen(["hut"]))("cat", 0).text == "house"


def test_what_decided_is_written_beside_the_text():
    meta = RandomPerturbation()(TEXTS[0], 0).meta
    assert meta["thresholds"] == {"min_similarity": 0.7, "senses": 3} and meta["replacements"] == 7
    assert meta["synonyms"] == "EmbeddedSynonyms" and 0.7 <= meta["window_similarity"] < 1


def test_a_threshold_is_found_anew_for_another_similarity():
    found = substitution_similarities(RandomPerturbation(), TEXTS)
    assert len(found) > 20
    threshold = calibrate_threshold([0.1, 0.4, 0.2, 0.3], 0.75)
    assert threshold == 0.2 and np.mean(found >= calibrate_threshold(found, 0.6)) >= 0.6


@pytest.mark.parametrize(
    "options", [{"replacements": 0}, {"min_similarity": 1.1}, {"max_probability": 0}, {"max_tokens": 1}]
)
def test_wrong_arguments_are_one_sentence(gpt2, options):
    with pytest.raises(UserError, match=next(iter(options))):
        DFTFooler(gpt2, **options)
