"""What detectors that ask language models share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from lit_core.lm.language_model import LanguageModel
from lit_detect.detectors.base import Detector, ZeroShotDetector
from lit_detect.scoring.causal import Quantity, TokenScores, check_scoring, score_tokens
from lit_detect.scoring.masked_language_model import MaskedLM

_Self = TypeVar("_Self", bound="LanguageModelDetector")


class LanguageModelDetector(Detector):
    """A detector that asks language models and does not change them.

    They are no submodules, so that they are neither in checkpoints nor given another precision; they follow the
    detector from device to device.

    Args:
        language_models: The models; the first one's tokens are counted.
        max_tokens: Tokens read of a text, the first ones.
        batch_tokens: Tokens that go through a model at once, padding included.
    """

    max_tokens: int

    def __init__(self, language_models: Sequence[LanguageModel | MaskedLM], max_tokens: int, batch_tokens: int) -> None:
        super().__init__()
        self.language_models = tuple(language_models)
        self.max_tokens, self.batch_tokens = max_tokens, batch_tokens
        self.name = f"{type(self).__name__}[{', '.join(model.name for model in language_models)}]"

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text, uncut."""
        first = self.language_models[0]
        encode = first.encode if isinstance(first, MaskedLM) else first.tokenizer.encode
        return [len(encode(text)) for text in texts]

    def _apply(self: _Self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> _Self:
        for model in self.language_models:
            model.module.to(fn(torch.empty(0, device=model.device)).device)
        return super()._apply(fn, *args, **kwargs)


class TokenStatistic(LanguageModelDetector, ZeroShotDetector):
    """A zero-shot detector whose score is a function of quantities of a text's tokens.

    Args:
        language_model: The model whose log-probabilities and ranks are meant.
        reference_model: The model that `expected` and `variance` are taken over; None for the same.
        max_tokens: Tokens read of a text, the first ones.
        batch_tokens: Tokens that go through a model at once, padding included.

    Attributes:
        quantities: What `statistic` needs.

    Raises:
        UserError: If a number is out of range, or the models have different tokenizers.
    """

    quantities: ClassVar[tuple[Quantity, ...]]

    def __init__(
        self, language_model: LanguageModel, reference_model: LanguageModel | None, max_tokens: int, batch_tokens: int
    ) -> None:
        check_scoring(language_model, max_tokens, batch_tokens, reference_model)
        models = [language_model] if reference_model is None else [language_model, reference_model]
        super().__init__(models, max_tokens, batch_tokens)
        self.language_model, self.reference_model = language_model, reference_model

    @abstractmethod
    def statistic(self, tokens: TokenScores) -> Tensor:
        """Return the score of a text, a float64 number; higher is machine."""

    def score(self, texts: Sequence[str]) -> Tensor:
        """Return the statistic of each text; see `Detector.score`."""
        found = score_tokens(
            self.language_model, texts, self.max_tokens, self.quantities, self.reference_model, self.batch_tokens
        )
        return torch.stack([self.statistic(tokens) for tokens in found]) if found else torch.empty(0).double()
