"""GLTR: ranks by a loop, the paper's logistic regression by scikit-learn, and its ways of counting."""

import pytest
import torch
from austen_pairs import passages, shuffled
from naive_scores import naive_tokens

from lit_core.errors import UserError
from lit_core.lm.language_model import HuggingFaceLM
from lit_detect.detectors import GLTRDetector
from lit_detect.functional import logistic
from lit_detect.scoring.masked import score_masked
from lit_detect.scoring.masked_language_model import MaskedLM

HUMAN = [text[:150] for text in passages(12)]
MACHINE = [shuffled(text)[:80] for text in HUMAN]
LABELS = torch.tensor([0] * 12 + [1] * 12)


@pytest.fixture(scope="module")
def lm(tiny_gpt2):
    return HuggingFaceLM.from_pretrained(tiny_gpt2)


@pytest.fixture
def masked(tiny_bert):
    from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = BertConfig.from_pretrained(tiny_bert, num_hidden_layers=1, initializer_range=0.3)
        return MaskedLM(BertForMaskedLM(config).eval(), tokenizer, "tiny-bert")


def counted(ranks):
    """Parts of ranks that begin with 0, as the released code divides them."""
    parts = [0, 0, 0, 0]
    for rank in ranks:
        zero_based = rank - 1
        parts[0 if zero_based <= 9 else 1 if zero_based <= 99 else 2 if zero_based <= 999 else 3] += 1
    return parts


def test_counts_are_those_of_a_loop_over_tokens(lm):
    texts = ["", "Emma", *HUMAN]
    expected = [counted(naive_tokens(lm, text, 60)["rank"]) for text in texts]
    raw = GLTRDetector(lm, max_tokens=60).features(texts)
    assert raw.tolist() == expected and raw.dtype == torch.float64
    fractions = GLTRDetector(lm, "fractions", max_tokens=60).features(texts)
    assert fractions.tolist() == [pytest.approx([part / sum(row) for part in row]) for row in expected]
    assert GLTRDetector(lm, max_tokens=60).features([]).shape == (0, 4)


def test_a_masked_model_counts_too(masked):
    detector = GLTRDetector(masked, max_tokens=40)
    ranks = [scores["rank"].tolist() for scores in score_masked(masked, HUMAN, 40)]
    assert detector.features(HUMAN).tolist() == [counted(row) for row in ranks]
    assert detector.count_tokens(["", "Emma"]) == [0, len(masked.encode("Emma"))]
    assert detector.name == "GLTRDetector[tiny-bert, raw]"


@pytest.mark.parametrize("counts", ["raw", "fractions"])
def test_the_score_is_the_decision_of_scikit_learn(lm, counts, monkeypatch):
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, RepeatedStratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    detector = GLTRDetector(lm, counts, max_tokens=60)
    with pytest.raises(UserError, match="not fitted"):
        detector.score(HUMAN)
    features = detector.features(HUMAN + MACHINE)
    monkeypatch.setattr(logistic, "INVERSE_PENALTIES", (100.0, 1.0, 0.01))  # short_search has one
    detector.fit_features(features, LABELS)
    # the three solvers find one optimum of the raw counts but for liblinear, which holds back the intercept as well
    scaler = StandardScaler() if counts == "fractions" else "passthrough"
    search = GridSearchCV(
        make_pipeline(scaler, LogisticRegression(max_iter=1000)),
        {
            "logisticregression__solver": ["newton-cg", "lbfgs", "liblinear"],
            "logisticregression__C": [100, 1.0, 0.01],
        },
        cv=RepeatedStratifiedKFold(n_splits=10, n_repeats=1, random_state=1),
        scoring="accuracy",
    ).fit(features.numpy(), LABELS.numpy())
    decision = search.best_estimator_.decision_function(features.numpy())
    assert detector.score(HUMAN + MACHINE).tolist() == pytest.approx(decision.tolist(), abs=1e-6)
    if counts == "raw":  # of which the length tells these apart
        assert detector.score(MACHINE).mean() > detector.score(HUMAN).mean()


def test_the_fit_is_in_the_state_and_the_language_model_is_not(lm):
    detector = GLTRDetector(lm, max_tokens=60)
    detector.fit_features(detector.features(HUMAN + MACHINE), LABELS)
    state = detector.state_dict()
    assert list(state) == ["_extra_state"] and state["_extra_state"].shape == (5,)
    other = GLTRDetector(lm, max_tokens=60).to(torch.float16)
    other.load_state_dict(state)
    assert torch.equal(other.half().score(HUMAN), detector.score(HUMAN))
    assert lm.module.dtype == torch.float32


def test_mistakes_are_named(lm, masked):
    with pytest.raises(UserError, match="counts is both"):
        GLTRDetector(lm, "both", max_tokens=60)
    with pytest.raises(UserError, match="max_tokens is 512, but the language model takes 64"):
        GLTRDetector(lm)
    with pytest.raises(UserError, match="batch_tokens is 0"):
        GLTRDetector(masked, max_tokens=40, batch_tokens=0)
