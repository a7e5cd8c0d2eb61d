"""Ranks of tokens in the order of their probability."""

from __future__ import annotations

import torch
from torch import Tensor

#: Names of the four parts of `rank_histogram`, by the likelier tokens that each token has.
RANK_BINS = ("below_10", "10_to_99", "100_to_999", "from_1000")
_EDGES = (10, 100, 1000)


def ranks_of(logits: Tensor, tokens: Tensor) -> Tensor:
    """Return the rank of a token in each row: 1 for the likeliest, and 1 more for each strictly likelier token.

    Tokens of equal probability share the best rank, so ties cost nothing whatever their order.

    Args:
        logits: Float32 or float64 of shape ``(n, vocabulary)``.
        tokens: Token ids ``(n,)``.

    Returns:
        int64 of shape ``(n,)``.

    Example:
        >>> ranks_of(torch.tensor([[0.0, 2.0, 1.0, 1.0]]).repeat(3, 1), torch.tensor([1, 2, 3]))
        tensor([1, 2, 2])
    """
    # Counted in the logits' own type, exact up to 2^24 in float32: a sum of booleans copies them to 64 bits first.
    likelier = torch.gt(logits, logits.gather(-1, tokens[:, None]), out=torch.empty_like(logits))
    return likelier.sum(-1).long() + 1


def rank_histogram(rank: Tensor) -> Tensor:
    """Count tokens by how many tokens were likelier: below 10, to 99, to 999, more (Gehrmann et al. 2019, GLTR).

    GLTR counts ranks from 0, so that the first part holds the ten likeliest tokens.

    Args:
        rank: Rank of each token, from 1, ``(t,)``.

    Returns:
        float64 of shape ``(4,)``, which sum to t.

    Example:
        >>> rank_histogram(torch.tensor([1, 10, 11, 1000, 1001]))
        tensor([2., 1., 1., 1.], dtype=torch.float64)
    """
    parts = torch.bucketize(rank - 1, torch.tensor(_EDGES, device=rank.device), right=True)
    return torch.bincount(parts, minlength=len(RANK_BINS)).double()
