import pytest
import torch

from lit_core.errors import UserError
from lit_detect.detectors import EntityStatistics

NAMED = [
    "I saw Anna. Then Anna met Bob. So Bob left.",
    "I know Eve. I like Eve and Tom.",
    "Here Zoe met Tom. But Tom ran.",
]
NAMELESS = ["It rained. They saw it.", "She said it was late. He left.", "It is important. It is good."]


def test_a_text_written_out():
    found = EntityStatistics().features(["Today Anna met Bob Ray. It rained. She and Anna left."])
    names = EntityStatistics().feature_names
    assert found.shape == (1, 12) and found.dtype == torch.float64
    row = dict(zip(names, found[0].tolist(), strict=True))
    assert row == pytest.approx(
        {
            "mentions_per_sentence": 1,
            "mentions_per_word": 3 / 11,
            "words_per_mention": 4 / 3,
            "repeat_rate": 1 / 3,
            "nameless_sentences": 1 / 3,
            "linked_sentences": 2 / 3,
            "mean_gap": 2,
            "new_name_position": 0,
            "pronoun_share": 2 / 5,
            "graph_density": 2 / 3,
            "components_per_node": 1 / 3,
            "largest_component": 1,
        }
    )


def test_only_the_first_words_are_read():
    detector = EntityStatistics(max_tokens=5)
    text = "Here Anna met Bob today. Then Eve came with Tom."
    assert torch.equal(detector.features([text]), detector.features(["Here Anna met Bob today."]))
    assert detector.count_tokens([text, "", "a well-known man's 3 hats"]) == [10, 0, 5]


def test_it_is_fitted_and_comes_back_from_a_state():
    detector = EntityStatistics()
    with pytest.raises(UserError, match="not fitted"):
        detector.score(NAMED)
    labels = torch.tensor([0] * 3 + [1] * 3)
    detector.fit_features(detector.features(NAMED + NAMELESS), labels)
    assert detector.score(NAMELESS).min() > detector.score(NAMED).max()
    other = EntityStatistics()
    other.load_state_dict(detector.state_dict())
    assert torch.equal(other.score(NAMED), detector.score(NAMED))
    assert detector.score(["", "😀" * 1000, "A " * 100_000]).isfinite().all()


def test_no_texts_and_mistakes():
    assert EntityStatistics().features([]).shape == (0, 12)
    assert EntityStatistics().name == "EntityStatistics[rules]"
    with pytest.raises(UserError, match="max_tokens is 0"):
        EntityStatistics(max_tokens=0)
