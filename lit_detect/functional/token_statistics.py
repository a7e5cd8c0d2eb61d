"""Statistics of a text's token probabilities that tell a machine's text from a human's, for a linear classifier.

Each is a number of one text, from tensors over its t >= 1 tokens. ``expected`` and ``variance`` are mean and variance
of the log-probability of a token that is drawn from the model itself at the same position; minus ``expected`` is the
entropy. The *excess* of a token is its log-probability minus the expected one. Logarithms are natural.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lit_detect.functional.scores import fast_detect_gpt, log_likelihood, log_rank, lrr

#: Names of the statistics, in their order.
TOKEN_STATISTICS = (
    "log_prob",  # mean log-probability (Solaiman et al. 2019)
    "log_rank",  # minus the mean logarithm of the rank (Mitchell et al. 2023)
    "lrr",  # log-likelihood by log-rank (Su et al. 2023)
    "curvature",  # Fast-DetectGPT (Bao et al. 2024), by the root of the number of tokens
    "entropy",  # mean entropy of the predictions
    "entropy_spread",  # standard deviation of the entropy
    "log_prob_spread",  # standard deviation of the log-probability
    "log_prob_10",  # its quantiles
    "log_prob_25",
    "log_prob_50",
    "log_prob_75",
    "log_prob_90",
    "first",  # share of tokens that are the likeliest one; with the next three, GLTR's view (Gehrmann et al. 2019)
    "among_10",
    "among_100",
    "beyond_1000",
    "excess_spread",  # standard deviation of the excess
    "excess_uncertain",  # mean excess where the entropy is at least its median in the text
    "excess_certain",  # mean excess where it is below
    "neighbours",  # correlation of the log-probabilities of neighbouring tokens
    "window_spread",  # standard deviation of the mean log-probability of windows of 24 tokens
    "window_low",  # its smallest
    "window_high",  # its largest
    "log_tokens",  # logarithm of the number of tokens, since a short text's extremes lie nearer to its mean
)
#: Tokens of a window, which overlap by half.
_WINDOW = 24
_QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
_TINY = 1e-9


def token_statistics(log_prob: Tensor, rank: Tensor, expected: Tensor, variance: Tensor) -> Tensor:
    """Return the statistics of a text in the order of `TOKEN_STATISTICS`, float64.

    Args:
        log_prob: Log-probability of each token, ``(t,)``.
        rank: 1 plus the number of likelier tokens, ``(t,)``.
        expected: Mean log-probability of a token drawn from the model, ``(t,)``.
        variance: Its variance, ``(t,)``.
    """
    log_prob, expected = log_prob.double(), expected.double()
    count, entropy, excess = len(log_prob), -expected, log_prob - expected
    size = min(_WINDOW, count)
    windows = log_prob.unfold(0, size, max(1, size // 2)).mean(1)
    uncertain = entropy >= entropy.median()
    centred = log_prob - log_prob.mean()
    neighbours = (centred[1:] * centred[:-1]).sum() / centred.square().sum().clamp(min=_TINY)
    values = [
        log_likelihood(log_prob),
        log_rank(rank),
        lrr(log_prob, rank),
        fast_detect_gpt(log_prob, expected, variance) / count**0.5,
        entropy.mean(),
        _spread(entropy),
        _spread(log_prob),
        *torch.quantile(log_prob, torch.tensor(_QUANTILES, dtype=torch.float64, device=log_prob.device)),
        *((rank <= most).double().mean() for most in (1, 10, 100)),
        (rank > 1000).double().mean(),
        _spread(excess),
        excess[uncertain].mean(),
        excess[~uncertain].sum() / (~uncertain).sum().clamp(min=1),
        neighbours,
        _spread(windows),
        windows.min(),
        windows.max(),
        torch.tensor(count, dtype=torch.float64).log(),
    ]
    return torch.stack([value.cpu() for value in values])


def _spread(values: Tensor) -> Tensor:
    return values.std(unbiased=False)
