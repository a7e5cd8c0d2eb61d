"""Zero-shot detectors against the published formulas, written as loops over all logits."""

import math

import pytest
import torch
from austen_pairs import passages
from naive_scores import naive_tokens

from lit_core.errors import UserError
from lit_core.lm.language_model import HuggingFaceLM
from lit_core.lm.tokenizer import Tokenizer
from lit_detect.detectors import LRR, Binoculars, FastDetectGPT, LogLikelihood, LogRank
from lit_detect.detectors.language_model import TokenStatistic

TEXTS = ["", "Emma", *(text[:150] for text in passages(4))]


@pytest.fixture(scope="module")
def lm(tiny_gpt2):
    return HuggingFaceLM.from_pretrained(tiny_gpt2)


@pytest.fixture(scope="module")
def other(tiny_gpt2):
    """Another random model with the same tokenizer."""
    found = HuggingFaceLM.from_pretrained(tiny_gpt2)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for parameter in found.module.parameters():
            parameter.normal_(std=0.1)
    return found


def log_likelihood(own, _):
    return sum(own["log_prob"]) / len(own["log_prob"])


def log_rank(own, _):
    return -sum(map(math.log, own["rank"])) / len(own["rank"])


def lrr(own, _):
    # a text of likeliest tokens counts as if one of them were the second
    return abs(sum(own["log_prob"]) / (sum(map(math.log, own["rank"])) or math.log(2)))


def curvature(own, both):
    return (sum(own["log_prob"]) - sum(both["expected"])) / math.sqrt(sum(both["variance"]))


def ratio(own, both):
    perplexity = -sum(own["log_prob"]) / len(own["log_prob"])
    cross_perplexity = -sum(both["expected"]) / len(both["expected"])
    return -perplexity / cross_perplexity


CASES = {
    "LogLikelihood": (lambda lm, other: LogLikelihood(lm, 60), log_likelihood, False),
    "LogRank": (lambda lm, other: LogRank(lm, 60), log_rank, False),
    "LRR": (lambda lm, other: LRR(lm, 60), lrr, False),
    "FastDetectGPT alone": (lambda lm, other: FastDetectGPT(lm, max_tokens=60), curvature, False),
    "FastDetectGPT": (lambda lm, other: FastDetectGPT(lm, other, 60), curvature, True),
    "Binoculars": (lambda lm, other: Binoculars(lm, other, 60), ratio, True),
}


@pytest.mark.parametrize("case", CASES)
def test_scores_are_the_published_ones(lm, other, case):
    make, formula, two = CASES[case]
    detector = make(lm, other)
    expected = []
    for text in TEXTS:
        own = naive_tokens(lm, text, 60)
        expected.append(formula(own, naive_tokens(lm, text, 60, other) if two else own))
    found = detector.score(TEXTS)
    assert found.dtype == torch.float64 and found.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert detector.score([]).shape == (0,)
    assert torch.allclose(detector.score(TEXTS[::-1]).flip(0), found, atol=1e-6)
    assert list(detector.parameters()) == [] and list(detector.state_dict()) == []


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_what_smollm2_writes_scores_higher_than_austen(case):
    from lit_core.lm.pretrained import smollm2

    lm, observer = smollm2(dtype="bfloat16"), smollm2(layers=28, dtype="bfloat16")
    human = [text[:400] for text in passages(6)]
    written = lm.generate([text[:40] for text in human], max_new_tokens=80, temperature=0.7)
    detector = CASES[case][0](lm, observer)
    assert detector.score(written).mean() > detector.score(human).mean()


def test_bad_texts_have_finite_scores(lm, other):
    texts = ["", " ", "😀" * 50, "a" * 100_000, "\ud800".encode("utf-8", "replace").decode(), "\x00<|endoftext|>"]
    for make, _, _ in CASES.values():
        assert make(lm, other).score(texts).isfinite().all()
    detector = LogLikelihood(lm, 60)
    assert detector.count_tokens(["", "Emma " * 100])[0] == 0 < 60 < detector.count_tokens(["Emma " * 100])[0]


def test_names_and_mistakes(lm, tiny_gpt2):
    assert LogLikelihood(lm, 60).name == "LogLikelihood[tiny-gpt2]"
    assert Binoculars(lm, lm, 60).name == "Binoculars[tiny-gpt2, tiny-gpt2]"
    stranger = HuggingFaceLM(lm.module, Tokenizer.train_bpe(passages(3), 300))
    for make in (lambda: FastDetectGPT(lm, stranger, 60), lambda: Binoculars(lm, stranger, 60)):
        with pytest.raises(UserError, match="different tokenizers"):
            make()
    with pytest.raises(UserError, match="max_tokens is 65"):
        LogRank(lm, 65)


def test_models_follow_the_detector(lm):
    """There is one device here; the meta device shows that the weights are moved, and their type kept."""
    import copy

    detector = LogLikelihood(HuggingFaceLM(copy.deepcopy(lm.module), lm.tokenizer), 60)
    torch.nn.ModuleDict({"detector": detector}).to("meta", torch.bfloat16)
    (model,) = detector.language_models
    assert model.device.type == "meta" and model.module.dtype == torch.float32


@pytest.mark.parametrize("quantities", [None, (), ("logprob",), "rank", ("rank", "ranks")])
def test_a_statistic_of_unknown_quantities_is_refused(quantities):
    members = {"statistic": lambda self, tokens: tokens["rank"].mean()}
    members |= {} if quantities is None else {"quantities": quantities}
    with pytest.raises(TypeError, match=r"Wrong.quantities is .* names among log_prob, rank, expected, variance"):
        type("Wrong", (TokenStatistic,), members)
