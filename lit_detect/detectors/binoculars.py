"""Perplexity over cross-perplexity."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from lit_core.lm.language_model import LanguageModel
from lit_detect.detectors.language_model import TokenStatistic
from lit_detect.functional.scores import binoculars
from lit_detect.scoring.causal import Quantity, TokenScores


class Binoculars(TokenStatistic):
    """Scores a text by how surprising it is beside what one model makes of another's predictions (Hans et al. 2024).

    The log-perplexity of the performer over the cross-entropy of the observer's predictions and the performer's. That
    ratio is low for machines, so the score is its negative. The thresholds the authors published hold for their pair of
    models only; calibrate one.

    Args:
        language_model: The performer, whose perplexity counts; published with Falcon-7B-Instruct.
        observer: The model whose predictions the performer is confronted with, with the same tokenizer; published with
            Falcon-7B.
        max_tokens: Tokens read of a text, the first ones, 1 or more, no more than the models take.
        batch_tokens: Tokens that go through a model at once, padding included, 1 or more; a GPU is faster with more.
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
        """Return minus the ratio."""
        return binoculars(tokens["log_prob"], tokens["expected"])
