"""Statistics of the names in a text: frequency, repetition, and structure of their graph."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from lit_detect.functional.graph import entity_edges


class NameStatistics(NamedTuple):
    """Twelve statistics of the names in a text; a ratio whose denominator is 0 is 0.

    A node is a name in a sentence. `entity_edges` says which nodes are linked.

    Args:
        mentions_per_sentence: Number of mentions per sentence.
        mentions_per_word: Number of mentions per word, from 0 to 1.
        words_per_mention: Mean number of words of a mention.
        repeat_rate: Share of mentions whose name was mentioned before, from 0 to 1.
        nameless_sentences: Share of sentences without a name, from 0 to 1.
        linked_sentences: Share of sentences with a name that also occurs in another sentence, from 0 to 1.
        mean_gap: Mean distance from a sentence with a name to the next one with the same name, in sentences.
        new_name_position: Mean relative position of the first sentence of each name, from 0 for the first sentence of
            the text to 1 for the last one.
        pronoun_share: Third-person pronouns divided by the sum of pronouns and mentions, from 0 to 1.
        graph_density: Edges divided by pairs of nodes, from 0 to 1.
        components_per_node: Connected components divided by nodes, from 0 to 1.
        largest_component: Share of the nodes in the largest connected component, from 0 to 1.
    """

    mentions_per_sentence: float
    mentions_per_word: float
    words_per_mention: float
    repeat_rate: float
    nameless_sentences: float
    linked_sentences: float
    mean_gap: float
    new_name_position: float
    pronoun_share: float
    graph_density: float
    components_per_node: float
    largest_component: float


def name_statistics(mentions: Sequence[tuple[int, str]], sentences: int, words: int, pronouns: int) -> NameStatistics:
    """Return the statistics of the names in a text.

    Args:
        mentions: Index of the sentence and name of each mention, sorted by offset.
        sentences: Number of sentences of the text.
        words: Number of words of the text.
        pronouns: Number of third-person pronouns of the text.
    """
    nodes = list(dict.fromkeys(mentions))
    names = list(dict.fromkeys(name for _, name in nodes))
    sentences_of = {name: [sentence for sentence, other in nodes if other == name] for name in names}
    gaps = [later - earlier for row in sentences_of.values() for earlier, later in pairwise(row)]
    linked = {sentence for row in sentences_of.values() if len(row) > 1 for sentence in row}
    edges = entity_edges(
        torch.tensor([sentence for sentence, _ in nodes], dtype=torch.int64),
        torch.tensor([names.index(name) for _, name in nodes], dtype=torch.int64),
    )
    components = component_sizes(edges)
    count = len(mentions)
    return NameStatistics(
        mentions_per_sentence=_ratio(count, sentences),
        mentions_per_word=_ratio(count, words),
        words_per_mention=_ratio(sum(len(name.split()) for _, name in mentions), count),
        repeat_rate=_ratio(count - len(names), count),
        nameless_sentences=_ratio(sentences - len({sentence for sentence, _ in nodes}), sentences),
        linked_sentences=_ratio(len(linked), sentences),
        mean_gap=_ratio(sum(gaps), len(gaps)),
        new_name_position=_ratio(sum(row[0] for row in sentences_of.values()), len(names) * (sentences - 1)),
        pronoun_share=_ratio(pronouns, pronouns + count),
        graph_density=_ratio(int(edges.sum()), len(nodes) * (len(nodes) - 1)),
        components_per_node=_ratio(len(components), len(nodes)),
        largest_component=_ratio(max(components, default=0), len(nodes)),
    )


def component_sizes(edges_NN: Tensor) -> list[int]:
    """Return the number of nodes of each connected component of a graph.

    Args:
        edges_NN: True where two nodes are linked, ``(nodes, nodes)``, symmetric.

    Example:
        >>> component_sizes(torch.tensor([[0, 1, 0], [1, 0, 0], [0, 0, 0]]).bool())
        [2, 1]
    """
    linked = [row.nonzero()[:, 0].tolist() for row in edges_NN]
    sizes: list[int] = []
    seen: set[int] = set()
    for first in range(len(linked)):
        waiting, size = [first], len(seen)
        while waiting:
            node = waiting.pop()
            if node not in seen:
                seen.add(node)
                waiting += linked[node]
        if len(seen) > size:
            sizes.append(len(seen) - size)
    return sizes


def _ratio(a: float, b: float) -> float:
    return a / b if b else 0.0
