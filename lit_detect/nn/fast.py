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
    """From the word vectors of a text and the graph of its names to the logits of human and machine.

    A node begins with the mean of its mentions' word vectors, through a linear layer and a ReLU. After two graph
    convolutions a sentence is the mean of its nodes' states; a sentence without names is the mean of all its word
    vectors through the same linear layer and ReLU. An LSTM runs over the sentences, and the document vector is the mean
    of neighbouring states weighted by how well the sentences follow one another (`coherence_sum`). Joined with the
    encoder's first word vector it goes through dropout, a dense layer, tanh, dropout and a linear layer.

    No code of FAST was published: its entity vectors from Wikipedia are left out, and the weights stand where it asks
    a next-sentence model.

    Args:
        encoder_width: Width of the word vectors.
        width: Width of node, sentence and LSTM states.
        document_path: Whether the encoder's first word vector joins the document vector.
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
        """Return logits ``(batch, 2)``.

        Args:
            words_BTD: Word vectors of the encoder; the first one stands for the text.
            graphs: The graphs of the names, with matrices of the word vectors' type and on their device.
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
