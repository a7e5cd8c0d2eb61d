"""Binoculars, a detector by the ratio of perplexity and cross-perplexity."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from lit_core.lm.language_model import LanguageModel
from lit_detect.detectors.language_model import TokenStatistic
from lit_detect.functional.scores import binoculars
from lit_detect.scoring.causal import Quantity, TokenScores


class Binoculars(TokenStatistic):
    """Scores a text by its perplexity relative to the cross-perplexity of two models (Hans et al. 2024).

    The ratio is the log-perplexity of the text under the performer, divided by the cross-entropy of the observer's and
    the performer's predictions. It is low for machine text, so the score is its negative. The published thresholds hold
    only for the published pair of models; calibrate a threshold for another pair.

    Args:
        language_model: The performer, under which the perplexity is computed; the paper takes Falcon-7B-Instruct.
        observer: The observer, a model with the same tokenizer; the paper takes Falcon-7B.
        max_tokens: Number of tokens to read from the start of a text, 1 or more, at most what both models take.
        batch_tokens: Most tokens in a forward pass, padding included, 1 or more; a GPU is faster with more.
    """

    quantities: ClassVar[tuple[Quantity, ...]] = ("log_prob", "expected")

    def __init__(
        self,
        language_model: LanguageModel,
        observer: LanguageModel,
        max_tokens: int = 512,
        batch_tokens: int = 1024,
    ) -> None:
        super().__init__(language_model, observer, max_tokens, batch_tokens)

    def statistic(self, tokens: TokenScores) -> Tensor:
        """Return the negative ratio; see `lit_detect.functional.scores.binoculars`."""
        return binoculars(tokens["log_prob"], tokens["expected"])
