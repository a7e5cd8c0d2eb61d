import pytest
import torch

from lit_detect.functional.graph import (
    MAX_NODES,
    MAX_SENTENCES,
    batch_graphs,
    entity_edges,
    entity_graph,
    normalize_adjacency,
)
from lit_detect.language.entities import extract_entities, split_sentences
from lit_detect.records import Mention


def word_offsets(text, tokens=None):
    """A token per word, between two that stand for nothing."""
    offsets, place = [(0, 0)], 0
    for word in text.split():
        place = text.index(word, place)
        offsets.append((place, place + len(word)))
        place += len(word)
    return torch.tensor([*offsets[:tokens], (0, 0)])


def graph_of(text, tokens=None):
    return entity_graph(extract_entities(text), split_sentences(text), word_offsets(text, tokens))


def edges_of(text):
    graph = graph_of(text)
    return entity_edges(graph.sentence_N, graph.name_N).int().tolist()


def test_a_chain_within_and_equal_names_between_sentences():
    # nodes: Anna, Bob, Eve | Bob | Anna, Eve
    text = "Today Anna, Bob and Eve met. Then Bob left. So Anna and Eve wept."
    assert [m.text for m in extract_entities(text)] == ["Anna", "Bob", "Eve", "Bob", "Anna", "Eve"]
    assert edges_of(text) == [
        [0, 1, 0, 0, 1, 0],
        [1, 0, 1, 1, 0, 0],
        [0, 1, 0, 0, 0, 1],
        [0, 1, 0, 0, 0, 0],
        [1, 0, 0, 0, 0, 1],
        [0, 0, 1, 0, 1, 0],
    ]


def test_a_name_twice_in_a_sentence_is_one_node_with_the_tokens_of_both():
    # nodes: Anna, Bob | Anna
    text = "Here Anna saw Bob and Anna ran. But Anna fell."
    assert edges_of(text) == [[0, 1, 1], [1, 0, 0], [1, 0, 0]]
    graph = graph_of(text)
    assert graph.tokens_NT.nonzero().tolist() == [[0, 2], [0, 6], [1, 4], [2, 9]]
    assert graph.sentence_N.tolist() == [0, 0, 1] and graph.name_N.tolist() == [0, 1, 0]


def test_a_name_in_three_sentences_is_a_triangle_and_other_case_another_name():
    assert edges_of("I saw Anna. I met Anna. I know Anna. I say ANNA.") == [
        [0, 1, 1, 0],
        [1, 0, 1, 0],
        [1, 1, 0, 0],
        [0, 0, 0, 0],
    ]


def test_names_with_other_blanks_are_equal():
    assert edges_of("I like New York. I left New  York.") == [[0, 1], [1, 0]]


def test_normalisation_written_out():
    # Anna (degree 3 with itself) is linked with Bob and Anna, who have degree 2
    half, mixed = 1 / 2, 1 / 6**0.5
    expected = [[1 / 3, mixed, mixed], [mixed, half, 0], [mixed, 0, half]]
    edges = torch.tensor([[0, 1, 1], [1, 0, 0], [1, 0, 0]]).bool()
    torch.testing.assert_close(normalize_adjacency(edges), torch.tensor(expected))
    assert normalize_adjacency(torch.zeros(1, 1)).tolist() == [[1]]


def test_no_names_and_no_text():
    for text, sentences in (("It rains. It snows.", 2), ("", 0)):
        graph = graph_of(text)
        assert graph.sentence_N.shape == (0,) and graph.tokens_NT.shape == (0, len(word_offsets(text)))
        assert graph.sentence_tokens_ST.shape[0] == sentences
        batch = batch_graphs([graph])
        assert not any(matrix.isnan().any() for matrix in batch) and batch.adjacency_BNN.shape == (1, 1, 1)


def test_what_lies_beyond_the_tokens_is_left_out():
    graph = graph_of("Here Anna saw Bob. Then Eve came. Then Anna left.", tokens=7)  # to "Eve"
    assert graph.sentence_N.tolist() == [0, 0, 1] and graph.sentence_tokens_ST.shape[0] == 2
    graph = graph_of("Here Anna saw Bob. Then Eve came.", tokens=6)  # to "Then": a sentence with no name left
    assert graph.sentence_N.tolist() == [0, 0] and graph.sentence_tokens_ST.sum(dim=1).tolist() == [4, 1]


def test_a_sentence_without_tokens_is_left_out_of_the_numbers():
    sentences, mentions = (
        [(0, 2), (3, 5), (6, 8)],
        [Mention(0, 0, 2, "Ab"), Mention(1, 3, 5, "Cd"), Mention(2, 6, 8, "Ab")],
    )
    graph = entity_graph(mentions, sentences, torch.tensor([[0, 0], [0, 2], [6, 8]]))
    assert graph.sentence_N.tolist() == [0, 1] and graph.name_N.tolist() == [0, 0]
    assert graph.sentence_tokens_ST.int().tolist() == [[0, 1, 0], [0, 0, 1]]


def test_bounds():
    text = " ".join(f"In town X{i}a met X{i}b, X{i}c, X{i}d, X{i}e and X{i}f." for i in range(MAX_SENTENCES + 5))
    graph = graph_of(text)
    assert len(graph.name_N) == MAX_NODES and len(graph.sentence_tokens_ST) == MAX_SENTENCES
    text = " ".join(f"In town Y{i} slept." for i in range(MAX_SENTENCES + 5))
    assert len(graph_of(text).name_N) == MAX_SENTENCES


def test_matrices_of_a_batch_are_means_and_padding_is_zero():
    texts = ["Here Anna saw Bob and Anna ran. But Anna fell. It rained.", "it rains."]
    width = max(len(word_offsets(text)) for text in texts)
    offsets = [torch.nn.functional.pad(o := word_offsets(text), (0, 0, 0, width - len(o))) for text in texts]
    graphs = [entity_graph(extract_entities(t), split_sentences(t), o) for t, o in zip(texts, offsets, strict=True)]
    batch = batch_graphs(graphs)
    assert batch.real_BS.tolist() == [[True, True, True], [True, False, False]]
    assert batch.node_tokens_BNT[0, 0].nonzero()[:, 0].tolist() == [2, 6]
    assert batch.node_tokens_BNT[0, 0, 2] == 0.5
    assert batch.sentence_nodes_BSN[0].tolist() == [[0.5, 0.5, 0], [0, 0, 1], [0, 0, 0]]
    assert batch.sentence_tokens_BST.sum(dim=-1).tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch.adjacency_BNN[1].eq(0).all() and batch.node_tokens_BNT[1].eq(0).all()
    moved = batch.to(torch.zeros(1, dtype=torch.float64))
    assert moved.adjacency_BNN.dtype == torch.float64 and moved.real_BS.dtype == torch.bool


@pytest.mark.parametrize("seed", range(5))
def test_edges_against_a_loop(seed):
    generator = torch.Generator().manual_seed(seed)
    sentences = torch.randint(0, 6, (20,), generator=generator).sort().values
    names = torch.randint(0, 5, (20,), generator=generator)
    expected = set()
    for i in range(20):
        for j in range(20):
            if sentences[i] == sentences[j] and abs(i - j) == 1:
                expected.add((i, j))
            if sentences[i] != sentences[j] and names[i] == names[j]:
                expected.add((i, j))
    assert {tuple(pair) for pair in entity_edges(sentences, names).nonzero().tolist()} == expected
