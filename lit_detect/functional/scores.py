"""Zero-shot detection scores of a text, from its token probabilities under language models.

A higher score means machine. Each function takes tensors of shape ``(t,)`` over the t >= 1 tokens of a text, and
returns a float64 scalar. Logarithms are natural. ``expected`` and ``variance`` are mean and variance of the
log-probability of a token that is drawn from a reference model at the same position.
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
    """Return the negative mean logarithm of the rank (Mitchell et al. 2023).

    Args:
        rank: Rank of each token, from 1.
    """
    return -rank.double().log().mean()


def lrr(log_prob: Tensor, rank: Tensor) -> Tensor:
    """Return the negative sum of log-probabilities divided by the sum of log-ranks (Su et al. 2023, DetectLLM, LRR).

    If every token is the likeliest one, the sum of log-ranks is 0, and is replaced by log 2, the next larger value.

    Args:
        log_prob: Log-probability of each token.
        rank: Rank of each token, from 1.
    """
    return -log_prob.double().sum() / rank.double().log().sum().clamp(min=math.log(2))


def fast_detect_gpt(log_prob: Tensor, expected: Tensor, variance: Tensor) -> Tensor:
    """Return the conditional probability curvature (Bao et al. 2024, Fast-DetectGPT, its analytic form).

    It is the sum of log-probabilities minus the sum of their expected values, divided by the standard deviation of the
    sum.

    Args:
        log_prob: Log-probability of each token under the scoring model.
        expected: Mean of the scoring model's log-probability under the reference model, at each token.
        variance: Variance of the scoring model's log-probability under the reference model, at each token.
    """
    surprise = (log_prob.double() - expected.double()).sum()
    return surprise / variance.double().sum().clamp(min=_TINY).sqrt()


def binoculars(log_prob: Tensor, expected: Tensor) -> Tensor:
    """Return the negative ratio of log-perplexity and log-cross-perplexity (Hans et al. 2024, Binoculars).

    The published score is low for machine text; this is its negative.

    Args:
        log_prob: Log-probability of each token under the performer.
        expected: Mean of the performer's log-probability under the observer, at each token: minus the cross-entropy.
    """
    return log_prob.double().sum() / (-expected.double().sum()).clamp(min=_TINY)
