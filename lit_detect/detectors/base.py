"""Base classes of detectors, which give each text a score; a higher score means machine.

To add a detector, derive from one of the three kinds, export it from ``lit_detect.detectors``, and write its YAML in
``configs/detect/detector`` and its test.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lit_core.errors import UserError
from lit_core.origin import KeepsOrigin


class Detector(KeepsOrigin, nn.Module, ABC):
    """Base class of detectors.

    Attributes:
        name: Name of the class, and in brackets that of its model, such as ``EncoderDetector[MiniLM]``.
        max_tokens: Number of tokens that the detector reads from the start of a text; None reads all.
        special_tokens: How many of them are no tokens of the text.
        normalizes: Whether it normalises the Unicode of each text before it reads it.
    """

    name: str
    max_tokens: int | None
    special_tokens: int = 0
    normalizes: bool = False

    @property
    def is_fitted(self) -> bool:
        """Whether the scores come from weights that were trained or fitted, or need none; true unless overridden."""
        return True

    def require_fitted(self) -> None:
        """Raise an error if the detector would judge with weights that were not trained.

        Raises:
            UserError: If it is neither trained or fitted here nor loaded from a checkpoint of such a run.
        """
        if not self.is_fitted:
            raise UserError(
                f"{self.name} is not fitted yet, so its judgement would be random; run `lit-detect fit` first, or give "
                "--ckpt_path of such a run."
            )

    @abstractmethod
    def score(self, texts: Sequence[str]) -> Tensor:
        """Return the score of each text, float64 of shape ``(n,)`` on the CPU; a higher score means machine.

        Scores are computed in evaluation mode and without gradients, and do not depend on the other texts of the batch.
        """

    @abstractmethod
    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each whole text, ``(n,)``; predictions abstain if a text has too few."""

    def fill(self, texts: Sequence[str], window_tokens: int | None = None) -> list[float]:
        """Return the share of what the detector reads at once that each whole text fills; of more it reads the start.

        Args:
            texts: The texts.
            window_tokens: Tokens of a text that are to be read at once; None takes as many as can be.
        """
        limits = [window_tokens, None if self.max_tokens is None else self.max_tokens - self.special_tokens]
        limit = min((limit for limit in limits if limit is not None), default=math.inf)
        return [count / limit for count in self.count_tokens(texts)]


class TrainedDetector(Detector):
    """Base class of detectors that are trained by gradients; the score is the machine logit minus the human logit.

    Attributes:
        has_trained_weights: Whether all weights were trained to detect. `DetectorTask` sets it after a training and
            when it loads a checkpoint; set it where you load trained weights yourself.
    """

    has_trained_weights: bool = False

    @property
    def is_fitted(self) -> bool:
        """Whether all weights were trained to detect."""
        return self.has_trained_weights

    @abstractmethod
    def forward(self, texts: Sequence[str]) -> Tensor:
        """Return the logits of human and machine, ``(n, 2)``, on the network's device."""

    @torch.no_grad()
    def score(self, texts: Sequence[str]) -> Tensor:
        """Return the machine logit minus the human logit of each text; see `Detector.score`."""
        training = self.training
        self.eval()
        try:
            logits = self(texts).double().cpu()
        finally:
            self.train(training)
        return logits[:, 1] - logits[:, 0]


class FeatureDetector(Detector):
    """Base class of detectors that fit a classifier to features without gradients.

    `DetectorTask` gathers the features of the training set in one epoch and calls `fit_features`. What is fitted are
    plain tensors in the checkpoint. Language models that make the features are no submodules: they are named by their
    config and not saved.
    """

    @property
    @abstractmethod
    def feature_names(self) -> tuple[str, ...]:
        """The names of the features."""

    @abstractmethod
    def features(self, texts: Sequence[str]) -> Tensor:
        """Return the features of each text, float64 of shape ``(n, len(feature_names))`` on the CPU."""

    @abstractmethod
    def fit_features(self, features: Tensor, labels: Tensor) -> None:
        """Fit the classifier.

        Args:
            features: Features of the training texts as `features` returns them, ``(n, f)``.
            labels: 0 human, 1 machine, ``(n,)``; both must occur.
        """

    @abstractmethod
    def score_features(self, features: Tensor) -> Tensor:
        """Return the log-odds of machine, float64 of shape ``(n,)``, from features of shape ``(n, f)``.

        Raises:
            UserError: If `fit_features` was not called yet.
        """

    def score(self, texts: Sequence[str]) -> Tensor:
        """Return the log-odds of machine of each text; see `Detector.score`."""
        return self.score_features(self.features(texts))


class ZeroShotDetector(Detector):
    """Base class of detectors whose score needs no training; fitting one only maps its scores to probabilities."""
