"""A linear classifier of statistics of a text's token probabilities under a causal language model."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from lit_core.lm.language_model import LanguageModel
from lit_detect.detectors.language_model import LanguageModelDetector
from lit_detect.detectors.linear import LinearFeatureDetector
from lit_detect.functional.token_statistics import TOKEN_STATISTICS, token_statistics
from lit_detect.scoring.causal import Quantity, check_scoring, score_tokens

_BLANKS = re.compile(r"\s+")
#: What `token_statistics` reads of each token.
QUANTITIES: tuple[Quantity, ...] = ("log_prob", "rank", "expected", "variance")


class TokenStatistics(LanguageModelDetector, LinearFeatureDetector):
    """Classifies a text by statistics of its tokens' probabilities: likelihood, rank, entropy, curvature, their spread.

    One pass of a causal language model gives what the published zero-shot scores are made of; a logistic regression
    weighs them (`lit_detect.functional.token_statistics` lists the statistics and where they come from). Line breaks
    and runs of blanks count as one blank, so that the layout of a text is no evidence.

    Args:
        language_model: The scoring model.
        max_tokens: Number of tokens to read from the start of a text, 1 or more, at most what the model takes.
        batch_tokens: Most tokens in a forward pass, padding included, 1 or more; a GPU is faster with more.
    """

    def __init__(self, language_model: LanguageModel, max_tokens: int = 512, batch_tokens: int = 1024) -> None:
        check_scoring(language_model, max_tokens, batch_tokens)
        super().__init__([language_model], max_tokens, batch_tokens)
        self.language_model = language_model

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The names of the statistics."""
        return TOKEN_STATISTICS

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each whole text, where a run of blanks is one blank."""
        return super().count_tokens([_BLANKS.sub(" ", text) for text in texts])

    def features(self, texts: Sequence[str]) -> Tensor:
        """Return the statistics of each text, float64 of shape ``(n, len(feature_names))``."""
        plain = [_BLANKS.sub(" ", text).strip() for text in texts]
        scores = score_tokens(self.language_model, plain, self.max_tokens, QUANTITIES, batch_tokens=self.batch_tokens)
        rows = [
            token_statistics(tokens["log_prob"], tokens["rank"], tokens["expected"], tokens["variance"])
            for tokens in scores
        ]
        return torch.stack(rows) if rows else torch.empty(0, len(TOKEN_STATISTICS), dtype=torch.float64)
