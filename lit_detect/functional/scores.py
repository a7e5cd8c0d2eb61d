"""Statistics of a text under a language model, from quantities of its tokens; higher is machine for all of them.

Each function takes tensors ``(t,)`` over the tokens of one text, one or more, and returns a float64 number. Logarithms
are natural. ``expected`` and ``variance`` are those of the log-probability of a token that is drawn from a reference
model in the place of the one that stands there.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_TINY = torch.finfo(torch.float32).eps


def log_likelihood(log_prob: Tensor) -> Tensor:
    """Return the mean log-probability (Solaiman et al. 2019).

    Args:
        log_prob: Log-probability of each token.

    Example:
        >>> log_likelihood(torch.tensor([-1.0, -2.0]))
        tensor(-1.5000, dtype=torch.float64)
    """
    return log_prob.double().mean()


def log_rank(rank: Tensor) -> Tensor:
    """Return minus the mean logarithm of the rank (Mitchell et al. 2023).

    Args:
        rank: Rank of each token, from 1.
    """
    return -rank.double().log().mean()


def lrr(log_prob: Tensor, rank: Tensor) -> Tensor:
    """Return minus the sum of log-probabilities over the sum of log-ranks (Su et al. 2023, DetectLLM, LRR).

    Where every token is the likeliest one and the sum of log-ranks is 0, the next larger sum stands for it, log 2.

    Args:
        log_prob: Log-probability of each token.
        rank: Rank of each token, from 1.
    """
    return -log_prob.double().sum() / rank.double().log().sum().clamp(min=math.log(2))


def fast_detect_gpt(log_prob: Tensor, expected: Tensor, variance: Tensor) -> Tensor:
    """Return the conditional probability curvature (Bao et al. 2024, Fast-DetectGPT, its analytic form).

    The sum of log-probabilities minus that of what the reference expects, over the standard deviation of that sum.

    Args:
        log_prob: Log-probability of each token under the scoring model.
        expected: Mean of the scoring model's log-probability under the reference model, at each token.
        variance: Variance of the same.
    """
    surprise = (log_prob.double() - expected.double()).sum()
    return surprise / variance.double().sum().clamp(min=_TINY).sqrt()


def binoculars(log_prob: Tensor, expected: Tensor) -> Tensor:
    """Return minus the perplexity's logarithm over that of the cross-perplexity (Hans et al. 2024, Binoculars).

    The published score is low for machines; this one is its negative.

    Args:
        log_prob: Log-probability of each token under the performer.
        expected: Mean of the performer's log-probability under the observer, at each token: minus the cross-entropy.
    """
    return log_prob.double().sum() / (-expected.double().sum()).clamp(min=_TINY)
