"""The conditional probability curvature of a text."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from lit_core.lm.language_model import LanguageModel
from lit_detect.detectors.language_model import TokenStatistic
from lit_detect.functional.scores import fast_detect_gpt
from lit_detect.scoring.causal import Quantity, TokenScores


class FastDetectGPT(TokenStatistic):
    """Scores a text by how much likelier it is than what a model would write in its place (Bao et al. 2024).

    The analytic form of Fast-DetectGPT: the log-likelihood, minus its mean over tokens that the reference model draws
    at each position, over the standard deviation.

    Args:
        language_model: The scoring model, whose log-probabilities are compared.
        reference_model: The model that draws the alternatives, with the same tokenizer; null for the scoring model.
        max_tokens: Tokens read of a text, the first ones, 1 or more, no more than the models take.
        batch_tokens: Tokens that go through a model at once, padding included, 1 or more; a GPU is faster with more.
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
        """Return the curvature."""
        return fast_detect_gpt(tokens["log_prob"], tokens["expected"], tokens["variance"])
