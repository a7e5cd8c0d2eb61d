"""LRR, a detector by the ratio of log-likelihood and log-rank."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from lit_core.lm.language_model import LanguageModel
from lit_detect.detectors.language_model import TokenStatistic
from lit_detect.functional.scores import lrr
from lit_detect.scoring.causal import Quantity, TokenScores


class LRR(TokenStatistic):
    """Scores a text by the ratio of its log-likelihood and its log-rank (Su et al. 2023, DetectLLM).

    Both are smaller in magnitude for machine text, the log-rank more strongly.

    Args:
        language_model: The scoring model, which gives log-probabilities and ranks.
        max_tokens: Number of tokens to read from the start of a text, 1 or more, at most what the model takes.
        batch_tokens: Most tokens in a forward pass, padding included, 1 or more; a GPU is faster with more.
    """

    quantities: ClassVar[tuple[Quantity, ...]] = ("log_prob", "rank")

    def __init__(self, language_model: LanguageModel, max_tokens: int = 512, batch_tokens: int = 1024) -> None:
        super().__init__(language_model, None, max_tokens, batch_tokens)

    def statistic(self, tokens: TokenScores) -> Tensor:
        """Return the ratio; see `lit_detect.functional.scores.lrr`."""
        return lrr(tokens["log_prob"], tokens["rank"])
