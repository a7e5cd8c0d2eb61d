import pytest
from hypothesis import given
from hypothesis import strategies as st

from lit_core.corpora import Austen
from lit_detect.formats import EmbeddedPairs
from lit_detect.language.repetition import most_repeated, repeated_share


@given(st.lists(st.sampled_from(["The", "cat", "sat", "ä", "7"]), max_size=40))
def test_the_share_is_that_of_triples_seen_before(words):
    words = [word.lower() for word in words]
    seen, repeats, triples = [], 0, [words[i : i + 3] for i in range(max(0, len(words) - 2))]
    for triple in triples:
        repeats += triple in seen
        seen.append(triple)
    assert repeated_share(", ".join(words)) == pytest.approx(repeats / max(1, len(triples)))


def test_prose_is_far_below_the_limit_and_a_list_or_a_refrain_above_it():
    texts = [record.text for record in EmbeddedPairs().records() if not record.label]
    prose = max(map(repeated_share, [*texts, *(document.text[:4000] for document in Austen().documents())]))
    assert prose < 0.2 < most_repeated(map(repeated_share, texts)) == 0.3
    table = "\n".join(f"{row},the value of it,{row},is not for you" for row in range(60))
    for text in (table, "Row, row, row your boat, gently down the stream, life is but a dream.\n" * 4):
        assert repeated_share(text) > 0.3


def test_the_limit_leaves_out_one_human_text_in_a_hundred_at_most():
    assert most_repeated([]) == most_repeated([0.0] * 99 + [0.8]) == 0.3
    assert most_repeated([0.0] * 98 + [0.8] * 2) == most_repeated([0.8, 0.8, 0.8, 0.0]) == 0.8
