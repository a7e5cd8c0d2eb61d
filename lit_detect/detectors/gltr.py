"""GLTR, a detector by the ranks of a text's tokens in a language model's predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from lit_core.errors import UserError
from lit_core.lm.language_model import LanguageModel
from lit_detect.detectors.language_model import LanguageModelDetector
from lit_detect.detectors.linear import LinearFeatureDetector
from lit_detect.functional.ranks import RANK_BINS, rank_histogram
from lit_detect.scoring.causal import check_scoring, score_tokens
from lit_detect.scoring.masked import check_masked, score_masked
from lit_detect.scoring.masked_language_model import MaskedLM


class GLTRDetector(LanguageModelDetector, LinearFeatureDetector):
    """Classifies a text by the ranks of its tokens in a language model's predictions (Gehrmann et al. 2019).

    The four features count the tokens for which fewer than 10, 10 to 99, 100 to 999, or 1,000 and more tokens are
    likelier. The classifier is a logistic regression, fitted as by Pu et al. 2023. They took gpt2-xl, and
    bert-large-cased with each token masked in turn and 20 tokens of context on each side.

    Args:
        language_model: Model that ranks the tokens: a causal language model, or lit_detect.scoring.MaskedLM.
        counts: raw takes the counts, as the paper does, so the length of a text is a feature too; fractions divides
            them by the number of tokens.
        max_tokens: Number of tokens to read from the start of a text, 1 or more, at most what a causal model takes.
        batch_tokens: Most tokens in a forward pass, padding included, 1 or more; a GPU is faster with more.
    """

    def __init__(
        self,
        language_model: LanguageModel | MaskedLM,
        counts: Literal["raw", "fractions"] = "raw",
        max_tokens: int = 512,
        batch_tokens: int = 1024,
    ) -> None:
        if counts not in ("raw", "fractions"):
            raise UserError(f"counts is {counts}, but must be raw or fractions. Choose one of the two.")
        if isinstance(language_model, MaskedLM):
            check_masked(language_model, max_tokens, batch_tokens)
        else:
            check_scoring(language_model, max_tokens, batch_tokens)
        super().__init__([language_model], max_tokens, batch_tokens)
        self.language_model, self.counts = language_model, counts
        self.standardize = counts == "fractions"
        self.name = f"GLTRDetector[{language_model.name}, {counts}]"

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The names of the four counts."""
        return RANK_BINS

    def features(self, texts: Sequence[str]) -> Tensor:
        """Return the counts or fractions of each text, float64 of shape ``(n, 4)``."""
        lm, size = self.language_model, self.batch_tokens
        if isinstance(lm, MaskedLM):
            scores = score_masked(lm, texts, self.max_tokens, batch_tokens=size)
        else:
            scores = score_tokens(lm, texts, self.max_tokens, ("rank",), batch_tokens=size)
        counts = [rank_histogram(tokens["rank"]) for tokens in scores]
        features = torch.stack(counts) if counts else torch.empty(0, len(RANK_BINS)).double()
        return features / features.sum(1, keepdim=True) if self.counts == "fractions" else features
