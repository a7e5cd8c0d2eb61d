import math
from collections import Counter, defaultdict

import pytest
import torch

from lit_core.corpora import Austen
from lit_core.errors import UserError
from lit_core.lm.tokenizer import Tokenizer
from lit_detect.generation.ngram_model import NGramLM, training_texts


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.bytes()


DOCUMENTS = [list(b"abracadabra"), list(b"abba"), list(b"a cab, a bar"), list(b"cad")]


def naive(documents, tokenizer, order):
    """Interpolated Kneser-Ney, as in Chen and Goodman, by dictionaries and recursion."""
    end = tokenizer.end_of_text
    rows = [[end] * (order - 1) + row + [end] for row in documents]
    counts = {order: Counter(tuple(r[i : i + order]) for r in rows for i in range(len(r) - order + 1))}
    for n in range(order - 1, 0, -1):
        counts[n] = Counter(gram[1:] for gram in counts[n + 1])
    discounts = {}
    for n, found in counts.items():
        once, twice = (sum(c == times for c in found.values()) for times in (1, 2))
        discounts[n] = once / (once + 2 * twice) if once else 0.5
    followers = {n: defaultdict(dict) for n in counts}
    for n, found in counts.items():
        for gram, count in found.items():
            followers[n][gram[:-1]][gram[-1]] = count

    def probability(history, token, n):
        if n == 0:
            return 1 / tokenizer.vocab_size
        lower = probability(history[1:], token, n - 1)
        after = followers[n].get(tuple(history), {})
        if not after:
            return lower
        total = sum(after.values())
        return max(after.get(token, 0) - discounts[n], 0) / total + discounts[n] * len(after) / total * lower

    return lambda history, token: probability(tuple(history), token, order)


@pytest.mark.parametrize("order", [2, 3, 4])
def test_probabilities_are_those_of_the_formula(tokenizer, order):
    lm = NGramLM(DOCUMENTS, tokenizer, order)
    reference = naive(DOCUMENTS, tokenizer, order)
    end = tokenizer.end_of_text
    for history in ([end] * 3, list(b"abr"), list(b"cab"), list(b"zzz"), list(b"zza"), [end, end, ord("a")]):
        found = lm.probabilities(history)
        expected = [reference(history[-(order - 1) :], token) for token in range(tokenizer.vocab_size)]
        torch.testing.assert_close(torch.from_numpy(found), torch.tensor(expected, dtype=torch.float64))
        assert math.isclose(found.sum(), 1, rel_tol=1e-9)


def test_logits_with_cache_and_padding(tokenizer):
    lm = NGramLM(DOCUMENTS, tokenizer, 3)
    ids = torch.tensor([list(b"abrac")])
    full, nothing = lm.logits(ids)
    first, cache = lm.logits(ids[:, :2], lm.new_cache())
    second, cache = lm.logits(ids[:, 2:], cache)
    assert nothing is None
    torch.testing.assert_close(torch.cat((first, second), 1), full)
    padded = torch.tensor([[7, 7, *b"abrac"]])
    mask = torch.tensor([[False] * 2 + [True] * 5])
    last, _ = lm.logits(padded, mask=mask, last_only=True)
    torch.testing.assert_close(last, full[:, -1:])
    torch.testing.assert_close(full.exp().sum(-1), torch.ones(1, 5))


def test_writes_what_it_has_read(tokenizer):
    lm = NGramLM([list(b"the cat sat on the mat. " * 3)], tokenizer, 4)
    texts = lm.generate(["the c", "on th"], max_new_tokens=6, temperature=0)
    assert texts == ["at sat", "e mat."] or texts[1].startswith("e ")
    together = lm.generate(["the c"] * 5, max_new_tokens=20, seed=2)
    assert together == [lm.generate(["the c"], max_new_tokens=20, seed=2, first_row=row)[0] for row in range(5)]


def test_trains_on_training_documents_alone():
    from lit_detect.generation.passages import clean, split_of

    text = "\n".join(training_texts([Austen()]))
    documents = list(Austen().documents())
    for split, expected in (("train", True), ("test", False)):
        document = next(d for d in documents if split_of("austen", d.id) == split)
        assert (clean(document.text.split("\n\n")[2]) in text) is expected


def test_refusals(tokenizer):
    with pytest.raises(UserError, match="order is 5, but must be from 2 to 4"):
        NGramLM(DOCUMENTS, tokenizer, 5)
    with pytest.raises(UserError, match="needs one or more documents"):
        NGramLM([], tokenizer, 3)
