"""What all detectors share: texts in, scores out, higher is machine.

To add a detector, derive from one of the three kinds, export it from ``lit_detect.detectors``, and write its YAML in
``configs/detect/detector`` and its test.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Detector(nn.Module, ABC):
    """Scores texts.

    Attributes:
        name: Class and backbone by their true names, such as ``EncoderDetector[MiniLM]``.
        max_tokens: Tokens of its tokenizer that it reads of a text, the first ones; None reads all.
    """

    name: str
    max_tokens: int | None

    @abstractmethod
    def score(self, texts: Sequence[str]) -> Tensor:
        """Return a score of each text, float64 of shape ``(n,)`` on the CPU; higher is machine.

        In evaluation mode, without gradients; the batch a text is in does not matter.
        """

    @abstractmethod
    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text, uncut; predictions abstain below a number of them."""


class TrainedDetector(Detector):
    """A network that is trained by gradients; its score is the logit of machine minus that of human."""

    @abstractmethod
    def forward(self, texts: Sequence[str]) -> Tensor:
        """Return logits ``(n, 2)`` of human and machine, on the network's device."""

    @torch.no_grad()
    def score(self, texts: Sequence[str]) -> Tensor:
        """Return the logit of machine minus that of human; see `Detector.score`."""
        training = self.training
        self.eval()
        try:
            logits = self(texts).double().cpu()
        finally:
            self.train(training)
        return logits[:, 1] - logits[:, 0]


class FeatureDetector(Detector):
    """A linear classifier on features that need no gradients.

    `DetectorTask` gathers the features of the training set in one epoch and calls `fit_features`. What is fitted are
    plain tensors in the checkpoint. Language models that make the features are no submodules: they are named by their
    config and not saved.
    """

    @property
    @abstractmethod
    def feature_names(self) -> tuple[str, ...]:
        """Name of each feature."""

    @abstractmethod
    def features(self, texts: Sequence[str]) -> Tensor:
        """Return float64 features ``(n, len(feature_names))`` on the CPU."""

    @abstractmethod
    def fit_features(self, features: Tensor, labels: Tensor) -> None:
        """Fit the classifier.

        Args:
            features: As `features` returns them, ``(n, f)``.
            labels: 0 human, 1 machine, ``(n,)``; both occur.
        """

    @abstractmethod
    def score_features(self, features: Tensor) -> Tensor:
        """Return scores ``(n,)`` of features: the logit of machine.

        Raises:
            UserError: If nothing is fitted yet.
        """

    def score(self, texts: Sequence[str]) -> Tensor:
        """Return the logit of machine; see `Detector.score`."""
        return self.score_features(self.features(texts))


class ZeroShotDetector(Detector):
    """A statistic of a language model that needs no training; to fit one means to calibrate it."""
