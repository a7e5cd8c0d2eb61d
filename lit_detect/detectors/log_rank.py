"""Detector by the mean log-rank of a text's tokens."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from lit_core.lm.language_model import LanguageModel
from lit_detect.detectors.language_model import TokenStatistic
from lit_detect.functional.scores import log_rank
from lit_detect.scoring.causal import Quantity, TokenScores


class LogRank(TokenStatistic):
    """Scores a text by the negative mean logarithm of its tokens' ranks (Mitchell et al. 2023).

    Args:
        language_model: The scoring model, which ranks the tokens.
        max_tokens: Number of tokens to read from the start of a text, 1 or more, at most what the model takes.
        batch_tokens: Most tokens in a forward pass, padding included, 1 or more; a GPU is faster with more.
    """

    quantities: ClassVar[tuple[Quantity, ...]] = ("rank",)

    def __init__(self, language_model: LanguageModel, max_tokens: int = 512, batch_tokens: int = 1024) -> None:
        super().__init__(language_model, None, max_tokens, batch_tokens)

    def statistic(self, tokens: TokenScores) -> Tensor:
        """Return the negative mean log-rank; see `lit_detect.functional.scores.log_rank`."""
        return log_rank(tokens["rank"])
