"""A small convolutional network that predicts a tag for each token of a text."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from lit_core.errors import UserError, check_at_least
from lit_core.origin import KeepsOrigin, python_number
from lit_valuation.nn.mlp import check_sizes


class TokenConvNet(KeepsOrigin, nn.Module):
    """Embeddings of tokens, convolutions over their neighbours with ReLU, and a linear head at each token.

    Args:
        input_shape: Length of the texts, such as ``(128,)``.
        n_classes: Number of tags, 1 or more.
        vocabulary: Number of token ids, 1 or more: that of the tokenizer, or more.
        width: Width of the embeddings, 1 or more.
        hidden: Widths of the convolutions, each 1 or more.
        reach: Tokens before and after each one that a convolution sees, 0 or more.
        dropout: Dropout probability of each convolution, from 0 to below 1.

    Raises:
        UserError: If a size is below 1, or the dropout is out of range.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        n_classes: int,
        vocabulary: int,
        width: int = 64,
        hidden: Sequence[int] = (128,),
        reach: int = 2,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_sizes(input_shape, n_classes, "hidden", hidden, dropout)
        check_at_least(1, vocabulary=vocabulary, width=width)
        check_at_least(0, reach=reach)
        reach = python_number(reach)  # torch takes no array as the size of a kernel
        self.vocabulary = vocabulary
        self.embedding = nn.Embedding(vocabulary + 1, width, padding_idx=0)
        widths = [width, *hidden]
        self.convolutions = nn.ModuleList(
            nn.Conv1d(before, after, 2 * reach + 1, padding=reach) for before, after in pairwise(widths)
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(widths[-1], n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(batch, length, tags)``.

        Args:
            x: Token ids ``(batch, length)``, -1 where there is no token.

        Raises:
            UserError: If there is a token beyond the vocabulary.
        """
        if x.numel() and int(x.max()) >= self.vocabulary:
            raise UserError(
                f"vocabulary of the network is {self.vocabulary}, but a text has the token {int(x.max())}; give the "
                "number of tokens of the tokenizer."
            )
        is_token = (x >= 0)[:, None]
        hidden = self.embedding(x.clamp(min=-1) + 1).transpose(1, 2)
        for convolution in self.convolutions:
            hidden = self.dropout(torch.relu(convolution(hidden))) * is_token
        logits: Tensor = self.head(hidden.transpose(1, 2))
        return logits
