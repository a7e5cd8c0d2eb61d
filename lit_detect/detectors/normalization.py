"""Detectors that normalise the Unicode of every text before they read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from lit_core.lm.language_model import LanguageModel
from lit_detect.detectors.base import Detector, TrainedDetector
from lit_detect.language.normalize import normalize_text
from lit_detect.scoring.masked_language_model import MaskedLM


def with_normalization(detector: Detector) -> Detector:
    """Return a detector that normalises the Unicode of every text and gives it to ``detector``.

    Args:
        detector: A detector that was trained on normalised texts.

    Returns:
        The detector; a `TrainedDetector`, which can be trained further, if ``detector`` is one.
    """
    return _NormalizingNetwork(detector) if isinstance(detector, TrainedDetector) else _Normalizing(detector)


class _Normalizing(Detector):
    """Applies `normalize_text` before a detector. Name and token limit are those of the detector."""

    normalizes = True

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector, self.name = detector, detector.name
        self.max_tokens, self.special_tokens = detector.max_tokens, detector.special_tokens
        self.register_load_state_dict_pre_hook(_accept_bare_keys)

    @property
    def language_models(self) -> tuple[LanguageModel | MaskedLM, ...]:
        """The language models that the detector uses."""
        return getattr(self.detector, "language_models", ())

    @property
    def is_fitted(self) -> bool:
        """Whether the detector is fitted."""
        return self.detector.is_fitted

    def score(self, texts: Sequence[str]) -> Tensor:
        """Return the scores of the normalised texts; see `Detector.score`."""
        return self.detector.score(_normalized(texts))

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each normalised text, not truncated."""
        return self.detector.count_tokens(_normalized(texts))

    def fill(self, texts: Sequence[str], window_tokens: int | None = None) -> list[float]:
        """Return the share that each normalised text fills of what the detector reads at once."""
        return self.detector.fill(_normalized(texts), window_tokens)


class _NormalizingNetwork(_Normalizing, TrainedDetector):
    def forward(self, texts: Sequence[str]) -> Tensor:
        """Return the logits of the normalised texts; see `TrainedDetector.forward`."""
        return self.detector(_normalized(texts))


def _normalized(texts: Sequence[str]) -> list[str]:
    return [normalize_text(text) for text in texts]


def _accept_bare_keys(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Rename the keys of a checkpoint whose detector was not wrapped in `_Normalizing` when it was written."""
    own = [key for key in state if key.startswith(prefix)]
    if not any(key.startswith(f"{prefix}detector.") for key in own):
        for key in own:
            state[f"{prefix}detector.{key.removeprefix(prefix)}"] = state.pop(key)
