"""Fast-DetectGPT, a detector by conditional probability curvature."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from lit_core.lm.language_model import LanguageModel
from lit_detect.detectors.language_model import TokenStatistic
from lit_detect.functional.scores import fast_detect_gpt
from lit_detect.scoring.causal import Quantity, TokenScores


class FastDetectGPT(TokenStatistic):
    """Scores a text by its conditional probability curvature, in the analytic form of Bao et al. 2024.

    The curvature is the log-likelihood of the text, minus its mean over alternative tokens that the reference model
    draws at each position, divided by the standard deviation of the same.

    Args:
        language_model: The scoring model, which gives the log-probabilities.
        reference_model: The model that draws the alternatives, with the same tokenizer; null for the scoring model.
        max_tokens: Number of tokens to read from the start of a text, 1 or more, at most what both models take.
        batch_tokens: Most tokens in a forward pass, padding included, 1 or more; a GPU is faster with more.
    """

    quantities: ClassVar[tuple[Quantity, ...]] = ("log_prob", "expected", "variance")

    def __init__(
        self,
        language_model: LanguageModel,
        reference_model: LanguageModel | None = None,
        max_tokens: int = 512,
        batch_tokens: int = 1024,
    ) -> None:
        super().__init__(language_model, reference_model, max_tokens, batch_tokens)

    def statistic(self, tokens: TokenScores) -> Tensor:
        """Return the curvature; see `lit_detect.functional.scores.fast_detect_gpt`."""
        return fast_detect_gpt(tokens["log_prob"], tokens["expected"], tokens["variance"])
