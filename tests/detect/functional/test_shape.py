import random

import pytest

from lit_core.errors import UserError
from lit_detect.functional.shape import LEAK, character_auroc, shape


def test_shapes():
    assert shape('"No," he said, 3 times.') == '"aa," aa aaaa, 0 aaaaa.'
    assert shape("Éa_1٣") == "aa_00"


def make(quote, words, seed=0, documents=30):
    """Texts of the same random words; the machine's with other quotes, or other words."""
    draw = random.Random(seed)
    texts, labels, groups = [], [], []
    for document in range(documents):
        for label in (0, 1):
            vocabulary = words[label]
            body = " ".join(draw.choice(vocabulary) for _ in range(40))
            texts.append(f"{quote[label]}{body}{quote[label]} he said.")
            labels.append(label)
            groups.append(f"document {document}")
    return texts, labels, groups


COMMON = ["anna", "bert", "carl", "dora", "emil"]


def test_other_quotes_are_found_in_shapes():
    texts, labels, groups = make(('"', "'"), (COMMON, COMMON))
    assert character_auroc(texts, labels, groups, "shapes").mean > 0.99


def test_other_words_of_equal_lengths_are_found_in_texts_alone():
    texts, labels, groups = make(('"', '"'), (COMMON, ["fina", "gerd", "hans", "inge", "jose"]))
    assert character_auroc(texts, labels, groups, "texts").mean > 0.99
    blind = character_auroc(texts, labels, groups, "shapes")
    assert 0.4 <= blind.mean <= LEAK and blind.low <= blind.mean <= blind.high


def test_documents_are_never_divided():
    """Each document has a word of its own that tells its label, so that a divided document would be recognised."""
    texts = [f"{number}" * 9 for number in range(10) for _ in range(10)]
    labels = [number % 2 for number in range(10) for _ in range(10)]
    groups = [str(number) for number in range(10) for _ in range(10)]
    assert character_auroc(texts, labels, groups, "texts").mean < 0.7


def test_too_few_documents():
    texts, labels, groups = make(('"', '"'), (COMMON, COMMON), documents=4)
    with pytest.raises(UserError, match="has 4 documents with texts of a class, but needs 5"):
        character_auroc(texts, labels, groups, "texts")
