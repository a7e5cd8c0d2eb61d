"""Negative log-likelihood of next tokens, computed in chunks so that not all logits are in memory at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

IGNORED = -100
"""Label of a position that is not scored."""

MAX_LOGITS = 1 << 26
"""Largest number of logits held at once, 256 MiB in float32; chunks cost less than the memory traffic of more."""


def token_nll(
    hidden: Tensor,
    labels: Tensor,
    head: Callable[[Tensor], Tensor],
    vocab_size: int,
    max_logits: int = MAX_LOGITS,
) -> Tensor:
    """Return the negative log-likelihood of each token.

    If positions × vocab_size exceed `max_logits`, the logits are computed chunk by chunk and again in the backward
    pass, so that they are never held at once.

    Args:
        hidden: Last hidden states, of shape ``(..., d)``.
        labels: Token ids of shape ``(...)``; `IGNORED` where a position is not scored.
        head: Maps hidden states of shape ``(n, d)`` to logits ``(n, vocab_size)``.
        vocab_size: Number of logits of a position.
        max_logits: Number of logits that may be held at once.

    Returns:
        Nats in float32, of the shape of `labels`; 0 where ignored.
    """
    hidden_TD, labels_T = hidden.flatten(0, -2), labels.flatten()

    def score(hidden_CD: Tensor, labels_C: Tensor) -> Tensor:
        # float32: a bfloat16 log-sum-exp over a vocabulary is off in the second digit
        return F.cross_entropy(head(hidden_CD).float(), labels_C, ignore_index=IGNORED, reduction="none")

    if vocab_size * len(hidden_TD) <= max_logits:
        return score(hidden_TD, labels_T).view_as(labels)
    size = max(1, max_logits // vocab_size)
    chunks = zip(hidden_TD.split(size), labels_T.split(size), strict=True)
    if torch.is_grad_enabled():
        parts = [checkpoint(score, *chunk, use_reentrant=False) for chunk in chunks]
    else:
        parts = [score(*chunk) for chunk in chunks]
    return torch.cat(parts).view_as(labels)
