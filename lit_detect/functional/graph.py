"""The graph of names that FAST reads (Zhong et al. 2020, arXiv 2010.07475): nodes, edges, batches.

No code of FAST was published. Nodes, edges and limits are those of its successor CoCo (Liu et al. 2023).

Shape suffixes: B batch, N nodes, S sentences, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lit_detect.records import Mention

MAX_NODES, MAX_SENTENCES = 150, 45


class EntityGraph(NamedTuple):
    """The names and sentences of a text, with the tokens of each.

    A node is a name in a sentence, with all its mentions there. Sentences without a token are left out, and the indices
    count the remaining ones.

    Args:
        sentence_N: Index of each node's sentence, in ascending order.
        name_N: Id of each node's name; equal names have equal ids.
        tokens_NT: True for the tokens of a node's mentions.
        sentence_tokens_ST: True for the tokens of a sentence.
    """

    sentence_N: Tensor
    name_N: Tensor
    tokens_NT: Tensor
    sentence_tokens_ST: Tensor


class GraphBatch(NamedTuple):
    """The graphs of a batch as matrices, padded with zeros.

    Args:
        adjacency_BNN: The normalised adjacency.
        node_tokens_BNT: Maps token vectors to their mean over each node's mentions.
        sentence_nodes_BSN: Maps node states to their mean over each sentence; zero for a sentence without names.
        sentence_tokens_BST: Maps token vectors to their mean over each sentence.
        real_BS: True for real sentences, False for padding.
    """

    adjacency_BNN: Tensor
    node_tokens_BNT: Tensor
    sentence_nodes_BSN: Tensor
    sentence_tokens_BST: Tensor
    real_BS: Tensor

    def to(self, like: Tensor) -> GraphBatch:
        """Return the batch on the device of a tensor, with its matrices in the tensor's type."""
        adjacency, node_tokens, sentence_nodes, sentence_tokens = (matrix.to(like) for matrix in self[:-1])
        return GraphBatch(adjacency, node_tokens, sentence_nodes, sentence_tokens, self.real_BS.to(like.device))


def entity_graph(mentions: Sequence[Mention], sentences: Sequence[tuple[int, int]], offsets_T2: Tensor) -> EntityGraph:
    """Return the graph of the names in a text, aligned with its tokens.

    Mentions and sentences without a token are left out, as are nodes after the 150th and sentences after the 45th.

    Args:
        mentions: The mentions of names in the text, sorted by offset.
        sentences: Start and end of each sentence, in characters.
        offsets_T2: Start and end of each token, in characters; equal for special tokens and padding.
    """
    sentence_tokens_ST = _overlap(sentences, offsets_T2)
    mention_tokens = _overlap([(mention.start, mention.end) for mention in mentions], offsets_T2)
    with_tokens = sentence_tokens_ST.any(dim=1).nonzero()[:MAX_SENTENCES, 0].tolist()
    new_index = {sentence: index for index, sentence in enumerate(with_tokens)}
    nodes: dict[tuple[int, str], Tensor] = {}
    for mention, tokens_T in zip(mentions, mention_tokens, strict=True):
        node = (new_index.get(mention.sentence, -1), " ".join(mention.text.split()))
        if node in nodes:
            nodes[node] = nodes[node] | tokens_T
        elif node[0] >= 0 and tokens_T.any() and len(nodes) < MAX_NODES:
            nodes[node] = tokens_T
    names = {name: i for i, name in enumerate(dict.fromkeys(name for _, name in nodes))}
    return EntityGraph(
        sentence_N=torch.tensor([sentence for sentence, _ in nodes], dtype=torch.int64),
        name_N=torch.tensor([names[name] for _, name in nodes], dtype=torch.int64),
        tokens_NT=torch.stack(list(nodes.values())) if nodes else mention_tokens[:0],
        sentence_tokens_ST=sentence_tokens_ST[with_tokens],
    )


def entity_edges(sentence_N: Tensor, name_N: Tensor) -> Tensor:
    """Return the edges of a graph of names, which link neighbours in a sentence and equal names of two sentences.

    The names of a sentence form a chain, as in CoCo.

    Args:
        sentence_N: Index of each node's sentence, in ascending order.
        name_N: Id of each node's name.

    Returns:
        True where two nodes are linked, ``(nodes, nodes)``; symmetric, and False on the diagonal.

    Example:
        >>> entity_edges(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 0])).int()  # Anna met Bob. Anna left.
        tensor([[0, 1, 1],
                [1, 0, 0],
                [1, 0, 0]], dtype=torch.int32)
    """
    index_N = torch.arange(len(sentence_N))
    same_NN = sentence_N[:, None] == sentence_N
    inner_NN = same_NN & ((index_N[:, None] - index_N).abs() == 1)
    inter_NN = ~same_NN & (name_N[:, None] == name_N)
    return inner_NN | inter_NN


def normalize_adjacency(edges_NN: Tensor) -> Tensor:
    """Return D^-1/2 (A + I) D^-1/2 of edges A, where D holds the row sums of A + I (Kipf and Welling 2017, Eq. 2).

    Args:
        edges_NN: True where two nodes are linked, ``(nodes, nodes)``, symmetric.

    Returns:
        Normalised adjacency, float32 of shape ``(nodes, nodes)``.
    """
    loops_NN = edges_NN.float() + torch.eye(len(edges_NN))
    root_N = loops_NN.sum(dim=1).rsqrt()
    return root_N[:, None] * loops_NN * root_N


def batch_graphs(graphs: Sequence[EntityGraph]) -> GraphBatch:
    """Return the graphs of a batch as padded matrices; all graphs must have the same number of tokens."""
    adjacencies = [normalize_adjacency(entity_edges(graph.sentence_N, graph.name_N)) for graph in graphs]
    nodes = max(1, *(len(graph.name_N) for graph in graphs))
    sentences = max(1, *(len(graph.sentence_tokens_ST) for graph in graphs))
    memberships = [graph.sentence_N == torch.arange(len(graph.sentence_tokens_ST))[:, None] for graph in graphs]
    return GraphBatch(
        adjacency_BNN=_stack(adjacencies, nodes, nodes),
        node_tokens_BNT=_mean(_stack([graph.tokens_NT for graph in graphs], nodes)),
        sentence_nodes_BSN=_mean(_stack(memberships, sentences, nodes)),
        sentence_tokens_BST=_mean(_stack([graph.sentence_tokens_ST for graph in graphs], sentences)),
        real_BS=torch.stack([torch.arange(sentences) < len(graph.sentence_tokens_ST) for graph in graphs]),
    )


def _overlap(spans: Sequence[tuple[int, int]], offsets_T2: Tensor) -> Tensor:
    """Return which tokens share a character with each span, bool of shape ``(spans, tokens)``."""
    spans_X2 = torch.tensor(list(spans), dtype=torch.int64).reshape(-1, 2)
    start_T, end_T = offsets_T2.unbind(dim=1)
    return (start_T < spans_X2[:, 1:]) & (end_T > spans_X2[:, :1]) & (start_T < end_T)


def _stack(matrices: Sequence[Tensor], rows: int, columns: int | None = None) -> Tensor:
    """Pad matrices with zeros at the bottom and the right, and stack them as float32."""
    width = matrices[0].shape[1] if columns is None else columns
    out = torch.zeros(len(matrices), rows, width)
    for target, matrix in zip(out, matrices, strict=True):
        target[: matrix.shape[0], : matrix.shape[1]] = matrix
    return out


def _mean(members: Tensor) -> Tensor:
    """Divide each row of ones by its sum."""
    return members / members.sum(dim=-1, keepdim=True).clamp(min=1)
