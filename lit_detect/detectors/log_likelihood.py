"""Detector by the mean log-probability of a text's tokens."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from lit_core.lm.language_model import LanguageModel
from lit_detect.detectors.language_model import TokenStatistic
from lit_detect.functional.scores import log_likelihood
from lit_detect.scoring.causal import Quantity, TokenScores


class LogLikelihood(TokenStatistic):
    """Scores a text by the mean log-probability of its tokens (Solaiman et al. 2019).

    Args:
        language_model: The scoring model, which gives the log-probabilities.
        max_tokens: Number of tokens to read from the start of a text, 1 or more, at most what the model takes.
        batch_tokens: Most tokens in a forward pass, padding included, 1 or more; a GPU is faster with more.
    """

    quantities: ClassVar[tuple[Quantity, ...]] = ("log_prob",)

    def __init__(self, language_model: LanguageModel, max_tokens: int = 512, batch_tokens: int = 1024) -> None:
        super().__init__(language_model, None, max_tokens, batch_tokens)

    def statistic(self, tokens: TokenScores) -> Tensor:
        """Return the mean log-probability; see `lit_detect.functional.scores.log_likelihood`."""
        return log_likelihood(tokens["log_prob"])
