"""How often a text takes the likeliest words."""

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

    Tokens are counted by how many tokens were likelier: fewer than 10, than 100, than 1,000, or more. A logistic
    regression on the four counts decides, fitted as Pu et al. 2023 did. They took gpt2-xl, and bert-large-cased with
    each token masked in turn and 20 tokens seen on each side.

    Args:
        language_model: What ranks the tokens: a causal language model, or lit_detect.scoring.MaskedLM.
        counts: Whether the counts are taken as they are, which is raw and what the paper did, so that a text's length
            counts as well; or divided by its number of tokens, which is fractions.
        max_tokens: Tokens read of a text, the first ones, 1 or more, no more than a causal model takes.
        batch_tokens: Tokens that go through the model at once, padding included, 1 or more; a GPU is faster with more.
    """

    def __init__(
        self,
        language_model: LanguageModel | MaskedLM,
        counts: Literal["raw", "fractions"] = "raw",
        max_tokens: int = 512,
        batch_tokens: int = 1024,
    ) -> None:
        if counts not in ("raw", "fractions"):
            raise UserError(f"counts is {counts}, but must be raw or fractions; choose one.")
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
        """Names of the four counts."""
        return RANK_BINS

    def features(self, texts: Sequence[str]) -> Tensor:
        """Return the counts or fractions of texts, float64 ``(n, 4)``."""
        if isinstance(self.language_model, MaskedLM):
            found = score_masked(self.language_model, texts, self.max_tokens, batch_tokens=self.batch_tokens)
        else:
            found = score_tokens(self.language_model, texts, self.max_tokens, ("rank",), batch_tokens=self.batch_tokens)
        counts = [rank_histogram(tokens["rank"]) for tokens in found]
        features = torch.stack(counts) if counts else torch.empty(0, len(RANK_BINS)).double()
        return features / features.sum(1, keepdim=True) if self.counts == "fractions" else features
