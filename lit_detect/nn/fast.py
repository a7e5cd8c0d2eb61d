"""The network of FAST on top of an encoder (Zhong et al. 2020, arXiv 2010.07475).

Shape suffixes: B batch, T tokens, D encoder width, W graph width, S sentences, N nodes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lit_detect.functional.coherence import coherence_sum
from lit_detect.functional.graph import GraphBatch
from lit_detect.nn.graph_convolution import GraphConvolution

_DROPOUT = 0.1


class FASTNetwork(nn.Module):
    """Classifies texts from their token vectors and the graph of their names.

    The forward pass, with the inputs ``words_BTD`` (token vectors of the encoder) and ``graphs``:

    1. **Nodes.** Average the token vectors of each node's mentions, and apply a linear layer and a ReLU. A node is a
       name in a sentence: ``(B, T, D)`` to ``(B, N, W)``.
    2. **Graph.** Apply two graph convolutions, which mix the states of linked nodes: ``(B, N, W)``.
    3. **Sentences.** Average the states of each sentence's nodes: ``(B, N, W)`` to ``(B, S, W)``. For a sentence
       without names, average its token vectors and apply the layers of step 1 instead.
    4. **Order.** Run an LSTM over the sentences: ``(B, S, W)``.
    5. **Document.** Concatenate the states of each pair of neighbouring sentences, weight the pairs by the coherence of
       the two sentences, and average (`coherence_sum`): ``(B, S, W)`` to ``(B, 2 W)``.
    6. **Document path.** Append the encoder's first token vector, if ``document_path``: ``(B, 2 W + D)``.
    7. **Head.** Apply dropout, a linear layer, tanh, dropout and a linear layer: logits ``(B, 2)``.

    No code of FAST was published. Its entity vectors from Wikipedia are left out, and step 5 compares sentence vectors
    where FAST queries a next-sentence model.

    Args:
        encoder_width: Width D of the token vectors.
        width: Width W of the node, sentence and LSTM states.
        document_path: Whether the head also reads the encoder's first token vector.
    """

    def __init__(self, encoder_width: int, width: int, document_path: bool) -> None:
        super().__init__()
        self.document_path = document_path
        self.words = nn.Sequential(nn.Linear(encoder_width, width), nn.ReLU())
        self.convolutions = nn.ModuleList([GraphConvolution(width, width), GraphConvolution(width, width)])
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.head = nn.Sequential(
            nn.Dropout(_DROPOUT),
            nn.Linear(2 * width + (encoder_width if document_path else 0), encoder_width),
            nn.Tanh(),
            nn.Dropout(_DROPOUT),
            nn.Linear(encoder_width, 2),
        )

    def forward(self, words_BTD: Tensor, graphs: GraphBatch) -> Tensor:
        """Return the logits of human and machine, ``(batch, 2)``.

        Args:
            words_BTD: Token vectors of the encoder, ``(batch, tokens, D)``; the first one represents the text.
            graphs: The graphs of the names, with matrices of the same type and device as the token vectors.
        """
        nodes_BNW = self.words(graphs.node_tokens_BNT @ words_BTD)
        for convolution in self.convolutions:
            nodes_BNW = convolution(nodes_BNW, graphs.adjacency_BNN)
        vectors_BSD = graphs.sentence_tokens_BST @ words_BTD
        named_BS1 = (graphs.sentence_nodes_BSN > 0).any(dim=-1, keepdim=True)
        sentences_BSW = torch.where(named_BS1, graphs.sentence_nodes_BSN @ nodes_BNW, self.words(vectors_BSD))
        states_BSW, _ = self.lstm(sentences_BSW)
        document_BX = coherence_sum(states_BSW, vectors_BSD, graphs.real_BS)
        if self.document_path:
            document_BX = torch.cat((document_BX, words_BTD[:, 0]), dim=-1)
        logits: Tensor = self.head(document_BX)
        return logits
