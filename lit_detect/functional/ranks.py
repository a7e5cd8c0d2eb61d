"""Ranks of tokens by probability, and their histogram."""

from __future__ import annotations

import torch
from torch import Tensor

#: Names of the four bins of `rank_histogram`, by the number of likelier tokens.
RANK_BINS = ("below_10", "10_to_99", "100_to_999", "from_1000")
#: Ranks up to which a token is in the bins but for the last.
RANK_EDGES = (10, 100, 1000)


def ranks_of(logits: Tensor, tokens: Tensor) -> Tensor:
    """Return the rank of a token in each row of logits: 1 plus the number of strictly likelier tokens.

    Tokens of equal probability have the same rank.

    Args:
        logits: Logits, float32 or float64 of shape ``(n, vocabulary)``.
        tokens: Token ids, ``(n,)``.

    Returns:
        Ranks from 1, int64 of shape ``(n,)``.

    Example:
        >>> ranks_of(torch.tensor([[0.0, 2.0, 1.0, 1.0]]).repeat(3, 1), torch.tensor([1, 2, 3]))
        tensor([1, 2, 2])
    """
    # Counting in the type of the logits is exact up to 2^24 in float32; a sum of booleans would copy them to int64.
    likelier = torch.gt(logits, logits.gather(-1, tokens[:, None]), out=torch.empty_like(logits))
    return likelier.sum(-1).long() + 1


def rank_histogram(rank: Tensor) -> Tensor:
    """Return the histogram of ranks with the bins of GLTR: below 10, 10 to 99, 100 to 999, 1,000 and more.

    The bins count likelier tokens (Gehrmann et al. 2019), so the first bin holds ranks 1 to 10.

    Args:
        rank: Rank of each token, from 1, ``(t,)``.

    Returns:
        Counts that sum to t, float64 of shape ``(4,)``.

    Example:
        >>> rank_histogram(torch.tensor([1, 10, 11, 1000, 1001]))
        tensor([2., 1., 1., 1.], dtype=torch.float64)
    """
    parts = torch.bucketize(rank - 1, torch.tensor(RANK_EDGES, device=rank.device), right=True)
    return torch.bincount(parts, minlength=len(RANK_BINS)).double()
