import pytest
import torch

from lit_detect.functional.name_statistics import component_sizes, name_statistics


def test_written_out():
    # Anna met Bob Ray. | Anna and Anna. | (no name) | Bob Ray met Eve. | Zoe left.
    mentions = [(0, "Anna"), (0, "Bob Ray"), (1, "Anna"), (1, "Anna"), (3, "Bob Ray"), (3, "Eve"), (4, "Zoe")]
    found = name_statistics(mentions, sentences=5, words=20, pronouns=3)
    # nodes: Anna0 Bob0 Anna1 Bob3 Eve3 Zoe4; edges: Anna0-Bob0, Bob3-Eve3, Anna0-Anna1, Bob0-Bob3
    expected = {
        "mentions_per_sentence": 7 / 5,
        "mentions_per_word": 7 / 20,
        "words_per_mention": 9 / 7,
        "repeat_rate": 3 / 7,
        "nameless_sentences": 1 / 5,
        "linked_sentences": 3 / 5,
        "mean_gap": (1 + 3) / 2,
        "new_name_position": (0 + 0 + 3 + 4) / 4 / 4,
        "pronoun_share": 3 / 10,
        "graph_density": 4 / 15,
        "components_per_node": 2 / 6,
        "largest_component": 5 / 6,
    }
    assert found._asdict() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("mentions", "sentences", "words", "pronouns"), [([], 0, 0, 0), ([], 2, 5, 0), ([(0, "Anna")], 1, 3, 0)]
)
def test_too_little_to_divide_by(mentions, sentences, words, pronouns):
    found = name_statistics(mentions, sentences, words, pronouns)
    assert all(0 <= value <= 1 for value in found)
    assert found.nameless_sentences == (1 if sentences == 2 else 0) and found.mean_gap == found.graph_density == 0


def test_components_against_powers_of_the_matrix():
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        edges = torch.rand(9, 9, generator=generator) < 0.1
        edges = (edges | edges.T) & ~torch.eye(9).bool()
        reached = torch.linalg.matrix_power((edges | torch.eye(9).bool()).double(), 9) > 0
        expected = {tuple(row.tolist()) for row in reached}
        assert sorted(component_sizes(edges)) == sorted(sum(row) for row in expected)
