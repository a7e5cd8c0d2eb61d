import re

import pytest
from austen_pairs import ChapterStarts
from hypothesis import given
from hypothesis import strategies as st

from lit_core.corpora import Austen, Corpus, Document
from lit_core.errors import UserError
from lit_core.lm.tokenizer import Tokenizer
from lit_detect.generation.passages import clean, cut_words, passages, prose, split_continuation, split_of


@pytest.fixture(scope="module")
def tokenizer():
    texts = [document.text for document in Austen().documents()][:12]
    return Tokenizer.train_bpe(texts, 600)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "“No; it won’t do,” said he —\nand *left* in 1811 (see [p. 3])...",
            "No, it will not do, said he - and left in see.",
        ),
        ("a--b -- c – d 1–2 well-known", "a - b - c - d well-known"),
        ("_very_ well ( said she ) …", "very well said she."),
        ("see https://a.b/c?d=1 now , ok", "see now, ok"),
        ("# Title\n\n- one\n- two", "Title - one - two"),
        ("\ufffdcafé\u200b 😀 `x`", "café x"),
        ("Don't: I'd say it's Fanny's, can't you?!", "Do not, I would say its Fannys, cannot you?"),
        ("the end.Then", "the end. Then"),
        ("", ""),
    ],
)
def test_formatting_goes(text, expected):
    assert clean(text) == expected


@given(st.text(alphabet=st.one_of(st.sampled_from("ab .,-–—_[]()\"'“\n\t…*#:/w"), st.characters()), max_size=60))
def test_cleaning_twice_changes_nothing(text):
    once = clean(text)
    assert clean(once) == once
    assert once == " ".join(once.split())


def test_the_last_word_may_be_half_a_word():
    assert cut_words("one two three", 2) == "one two"
    assert cut_words("one two thr", 3) is None
    assert cut_words("", 1) is None


def test_what_hangs_on_the_prefix_belongs_to_it():
    assert split_continuation("she was very", "much, so\nthat") == ("she was verymuch,", "so that")
    assert split_continuation("she was very", " much") == ("she was very", "much")
    assert split_continuation("she was", "") == ("she was", "")


def test_splits_by_name_in_the_right_shares():
    splits = [split_of("corpus", str(number)) for number in range(4000)]
    shares = {split: splits.count(split) / 4000 for split in set(splits)}
    assert abs(shares["train"] - 0.6) < 0.03 and abs(shares["val"] - 0.1) < 0.02 and abs(shares["test"] - 0.3) < 0.03
    assert split_of("austen", "emma/01") == split_of("austen", "emma/01") and splits[:50] != [
        split_of("other", str(number)) for number in range(50)
    ]


def test_only_running_prose_is_taken():
    long = "It was a fine day, and everybody was in the garden, as far as anyone could tell from the house."
    text = f"CHAPTER 1\n\n{long}\n\n{long}\n\n- {long}\n\nsee http://x.y {long}\n\n{long}\n\nNo end here, altho"
    assert list(prose(text)) == [[long, long], [long]]


def test_passages_of_austen(tokenizer):
    counts, primings, words = {"train": 30, "val": 4, "test": 10}, [5, 12], 40
    found = passages(ChapterStarts(), tokenizer, counts, primings, words, 3)
    assert {split: sum(p.split == split for p in found) for split in counts} == counts
    texts = {d.id: " ".join(clean(d.text).split()) for d in ChapterStarts().documents()}
    for passage in found:
        assert passage.split == split_of("austen", passage.document)
        for priming in primings:
            prefix, text = passage.prefix(priming), passage.continuation(priming, words)
            assert len(tokenizer.encode(prefix)) == priming and len(text.split(" ")) == words
            assert f"{prefix} {text}" in texts[passage.document]
            assert re.match(r"[A-Z-]", prefix)
    # spread over the documents, and no two passages share a word
    assert len({passage.document for passage in found if passage.split == "train"}) == 30
    more = passages(ChapterStarts(), tokenizer, {"test": 60}, primings, words, 3)
    assert more[:10] == [passage for passage in found if passage.split == "test"]
    starts = [(p.document, p.continuation(12, 12)) for p in more]
    assert len(set(starts)) == 60


def test_asking_for_more_than_there_are(tokenizer):
    class Short(Corpus):
        name, licence, origin, language = "short", "none", "here", "en"

        def documents(self):
            yield Document("one", "Nothing.")

        def facts(self):
            return {}

    with pytest.raises(UserError, match="train is 1 passages of short, but its documents have only 0"):
        passages(Short(), tokenizer, {"train": 1}, [3], 10, 0)
