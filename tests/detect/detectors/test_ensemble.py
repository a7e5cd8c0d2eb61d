"""An ensemble is the mean of standardised scores, mapped to a logit; its members are fitted with it or come trained."""

import pytest
import torch
from austen_pairs import passages, shuffled

from lit_core.errors import UserError
from lit_core.lm.language_model import HuggingFaceLM
from lit_detect.detectors import (
    EncoderDetector,
    Ensemble,
    EntityStatistics,
    GLTRDetector,
    LogLikelihood,
    LogRank,
    ZeroShotDetector,
)

HUMAN = [text[:150] for text in passages(12)]
MACHINE = [shuffled(text)[:80] for text in HUMAN]
TEXTS, LABELS = HUMAN + MACHINE, torch.tensor([0] * 12 + [1] * 12)


class Constant(ZeroShotDetector):
    name, max_tokens = "Constant", None

    def score(self, texts):
        return torch.ones(len(texts), dtype=torch.float64)

    def count_tokens(self, texts):
        return [1] * len(texts)


@pytest.fixture(scope="module")
def lm(tiny_gpt2):
    return HuggingFaceLM.from_pretrained(tiny_gpt2)


def fitted(ensemble):
    ensemble.fit_features(ensemble.features(TEXTS), LABELS)
    return ensemble


def test_it_is_a_mean_of_standardised_scores_and_a_slope(lm):
    from sklearn.linear_model import LogisticRegression

    ensemble = fitted(Ensemble([LogLikelihood(lm, 60), LogRank(lm, 60)]))
    columns = torch.stack([LogLikelihood(lm, 60).score(TEXTS), LogRank(lm, 60).score(TEXTS)], 1)
    mean = ((columns - columns.mean(0)) / columns.std(0)).mean(1)
    found = ensemble.score(TEXTS)
    slope = (found[1] - found[0]) / (mean[1] - mean[0])
    assert torch.allclose(found, found[0] + slope * (mean - mean[0]), atol=1e-9)
    free = LogisticRegression(C=1e6).fit(mean[:, None].numpy(), LABELS.numpy())
    # Platt's targets hold the slope back a little
    assert 0.5 < float(slope) / free.coef_.item() <= 1.001


def test_members_with_features_are_fitted_with_it(lm):
    gltr = GLTRDetector(lm, max_tokens=60)
    ensemble = Ensemble([gltr, EntityStatistics(), LogRank(lm, 60)])
    with pytest.raises(UserError, match=r"Ensemble.* is not fitted"):
        ensemble.score(TEXTS)
    features = ensemble.features(TEXTS)
    assert features.shape == (24, 4 + 12 + 1) and len(ensemble.feature_names) == 17
    assert ensemble.feature_names[0] == "GLTRDetector[tiny-gpt2, raw]/below_10"
    assert ensemble.feature_names[-1] == "LogRank[tiny-gpt2]/score"
    fitted(ensemble)
    alone = GLTRDetector(lm, max_tokens=60)
    alone.fit_features(alone.features(TEXTS), LABELS)
    assert torch.equal(gltr.score(TEXTS), alone.score(TEXTS))
    assert torch.equal(ensemble.member_scores(features)[:, 0], alone.score(TEXTS))
    again = Ensemble([GLTRDetector(lm, max_tokens=60), EntityStatistics(), LogRank(lm, 60)])
    again.load_state_dict(ensemble.state_dict())
    assert torch.equal(again.score(TEXTS), ensemble.score(TEXTS))


def test_fitted_and_trained_members_are_left_alone(lm):
    gltr = GLTRDetector(lm, max_tokens=60)
    gltr.fit_features(gltr.features(TEXTS), LABELS)
    encoder = EncoderDetector("scratch-1x32", max_tokens=32)
    encoder.has_trained_weights = True
    before = [gltr.score(TEXTS), encoder.score(TEXTS)]
    ensemble = fitted(Ensemble([gltr, encoder]))
    assert ensemble.features(TEXTS).shape == (24, 2)
    assert torch.equal(gltr.score(TEXTS), before[0]) and torch.equal(encoder.score(TEXTS), before[1])
    assert not any(parameter.requires_grad for parameter in ensemble.parameters())
    assert ensemble.max_tokens == 60


def test_tokens_are_those_of_the_member_that_finds_the_fewest(lm):
    ensemble = Ensemble([LogRank(lm, 60), EntityStatistics()])
    assert ensemble.count_tokens(["", "Emma Woodhouse, handsome"]) == [0, 3]


def test_mistakes_are_named(lm):
    with pytest.raises(UserError, match="members has 1 detectors"):
        Ensemble([LogRank(lm, 60)])
    with pytest.raises(UserError, match="Constant gives all training texts the same score"):
        fitted(Ensemble([LogRank(lm, 60), Constant()]))
