"""Statistics of texts against loops over their tokens in plain Python."""

import math

import pytest
import torch

from lit_detect.functional.scores import binoculars, fast_detect_gpt, log_likelihood, log_rank, lrr

VOCABULARY = 7


@pytest.fixture
def text():
    """Logits of two models, and the tokens that stand there."""
    torch.manual_seed(0)
    scoring, reference = torch.randn(2, 12, VOCABULARY).double() * 2
    return scoring, reference, torch.randint(0, VOCABULARY, (12,)).tolist()


def probabilities(row):
    exponentials = [math.exp(x) for x in row]
    return [e / sum(exponentials) for e in exponentials]


def looped(scoring, reference, tokens):
    """The five published formulas, token by token."""
    sums = dict.fromkeys(("log_prob", "log_rank", "mean", "variance", "cross"), 0.0)
    for row, other, token in zip(scoring.tolist(), reference.tolist(), tokens, strict=True):
        p, q = probabilities(row), probabilities(other)
        sums["log_prob"] += math.log(p[token])
        sums["log_rank"] += math.log(1 + sum(x > p[token] for x in p))
        mean = sum(w * math.log(x) for w, x in zip(q, p, strict=True))
        sums["mean"] += mean
        sums["variance"] += sum(w * math.log(x) ** 2 for w, x in zip(q, p, strict=True)) - mean**2
        sums["cross"] -= mean
    n = len(tokens)
    return {
        "log_likelihood": sums["log_prob"] / n,
        "log_rank": -sums["log_rank"] / n,
        "lrr": abs((sums["log_prob"] / n) / (sums["log_rank"] / n)),
        "fast_detect_gpt": (sums["log_prob"] - sums["mean"]) / math.sqrt(sums["variance"]),
        "binoculars": -(-sums["log_prob"] / n) / (sums["cross"] / n),
    }


def quantities(scoring, reference, tokens):
    log_probs, weights = scoring.log_softmax(-1), reference.softmax(-1)
    log_prob = log_probs[range(len(tokens)), tokens]
    expected = (weights * log_probs).sum(-1)
    variance = (weights * (log_probs - expected[:, None]) ** 2).sum(-1)
    rank = (log_probs > log_prob[:, None]).sum(-1) + 1
    return log_prob, rank, expected, variance


def test_the_published_formulas(text):
    log_prob, rank, expected, variance = quantities(*text)
    found = {
        "log_likelihood": log_likelihood(log_prob),
        "log_rank": log_rank(rank),
        "lrr": lrr(log_prob, rank),
        "fast_detect_gpt": fast_detect_gpt(log_prob, expected, variance),
        "binoculars": binoculars(log_prob, expected),
    }
    assert all(value.dtype == torch.float64 and value.dim() == 0 for value in found.values())
    assert {name: float(value) for name, value in found.items()} == pytest.approx(looped(*text), rel=1e-10)


def test_likely_tokens_score_higher(text):
    scoring, reference, tokens = text
    likely = scoring.argmax(-1).tolist()
    for score, chosen in (
        (log_likelihood, (0,)),
        (log_rank, (1,)),
        (lrr, (0, 1)),
        (fast_detect_gpt, (0, 2, 3)),
        (binoculars, (0, 2)),
    ):
        worse, better = (score(*[quantities(scoring, reference, row)[i] for i in chosen]) for row in (tokens, likely))
        assert better > worse, score.__name__


def test_what_divides_by_nothing_is_finite():
    one, certain = torch.ones(3, dtype=torch.int64), torch.zeros(3)
    assert lrr(torch.full((3,), -0.5), one) == pytest.approx(1.5 / math.log(2))
    assert fast_detect_gpt(certain, certain, certain) == 0
    assert binoculars(certain, certain) == 0
