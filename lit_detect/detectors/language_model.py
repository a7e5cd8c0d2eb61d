"""Base classes of detectors that query frozen language models."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar, get_args

import torch
from torch import Tensor

from lit_core.lm.language_model import LanguageModel
from lit_detect.detectors.base import Detector, ZeroShotDetector
from lit_detect.scoring.causal import Quantity, TokenScores, check_scoring, score_tokens
from lit_detect.scoring.masked_language_model import MaskedLM

_Self = TypeVar("_Self", bound="LanguageModelDetector")


class LanguageModelDetector(Detector):
    """Base class of detectors that query language models without training them.

    The models are not submodules, so checkpoints do not contain them and the trainer does not change their precision.
    They move to a device together with the detector.

    Args:
        language_models: The models; `count_tokens` uses the tokenizer of the first one.
        max_tokens: Number of tokens to read from the start of a text.
        batch_tokens: Most tokens in a forward pass, padding included.
    """

    max_tokens: int

    def __init__(self, language_models: Sequence[LanguageModel | MaskedLM], max_tokens: int, batch_tokens: int) -> None:
        super().__init__()
        self.language_models = tuple(language_models)
        self.max_tokens, self.batch_tokens = max_tokens, batch_tokens
        self.name = f"{type(self).__name__}[{', '.join(model.name for model in language_models)}]"

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each whole text."""
        first = self.language_models[0]
        encode = first.encode if isinstance(first, MaskedLM) else first.tokenizer.encode
        return [len(encode(text)) for text in texts]

    def _apply(self: _Self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> _Self:
        for model in self.language_models:
            model.module.to(fn(torch.empty(0, device=model.device)).device)
        return super()._apply(fn, *args, **kwargs)


class TokenStatistic(LanguageModelDetector, ZeroShotDetector):
    """Base class of zero-shot detectors whose score is a statistic of a text's token probabilities.

    Args:
        language_model: The scoring model, which gives log-probabilities and ranks.
        reference_model: The model whose predictions weight `expected` and `variance`; None for the scoring model.
        max_tokens: Number of tokens to read from the start of a text.
        batch_tokens: Most tokens in a forward pass, padding included.

    Attributes:
        quantities: The quantities of `TokenScores` that `statistic` reads.

    Raises:
        UserError: If a number is out of range, or the models have different tokenizers.
        TypeError: If a class defines `statistic`, but its ``quantities`` is missing or is not a tuple of such names.
    """

    quantities: ClassVar[tuple[Quantity, ...]]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        quantities = getattr(cls, "quantities", ())
        known = quantities and isinstance(quantities, tuple) and set(quantities) <= set(get_args(Quantity))
        if cls.statistic is not TokenStatistic.statistic and not known:
            raise TypeError(
                f"{cls.__name__}.quantities is {quantities!r}, but must be a tuple of one or more names among "
                f'{", ".join(get_args(Quantity))}. Set it to ("log_prob",), for example.'
            )

    def __init__(
        self, language_model: LanguageModel, reference_model: LanguageModel | None, max_tokens: int, batch_tokens: int
    ) -> None:
        check_scoring(language_model, max_tokens, batch_tokens, reference_model)
        models = [language_model] if reference_model is None else [language_model, reference_model]
        super().__init__(models, max_tokens, batch_tokens)
        self.language_model, self.reference_model = language_model, reference_model

    @abstractmethod
    def statistic(self, tokens: TokenScores) -> Tensor:
        """Return the score of a text from the quantities of its tokens, a float64 scalar."""

    def score(self, texts: Sequence[str]) -> Tensor:
        """Return the statistic of each text; see `Detector.score`."""
        scores = score_tokens(
            self.language_model, texts, self.max_tokens, self.quantities, self.reference_model, self.batch_tokens
        )
        return torch.stack([self.statistic(tokens) for tokens in scores]) if scores else torch.empty(0).double()
