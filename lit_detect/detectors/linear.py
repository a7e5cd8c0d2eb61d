"""Base class of detectors that fit a logistic regression to features."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_detect.detectors.base import FeatureDetector
from lit_detect.functional.logistic import fit_logistic


class LinearFeatureDetector(FeatureDetector):
    """Base class of detectors that fit a logistic regression to features; see `lit_detect.functional.logistic`.

    The fitted weights and bias are one float64 tensor of shape ``(f + 1,)``. Checkpoints contain it as the module's
    extra state. It is not a buffer, since a buffer would follow the module to half precision or to a device without
    float64.

    Attributes:
        standardize: Whether features are divided by their standard deviation before they are penalised.
    """

    standardize: bool = True

    def __init__(self) -> None:
        super().__init__()
        self._fitted = torch.empty(0, dtype=torch.float64)

    @property
    def is_fitted(self) -> bool:
        """Whether `fit_features` was called or a fitted checkpoint was loaded."""
        return self._fitted.numel() > 0

    @property
    def weight(self) -> Tensor:
        """Weights of the unscaled features, float64 of shape ``(f,)``."""
        return self._fitted[:-1]

    @property
    def bias(self) -> Tensor:
        """The log-odds of machine if all features are 0, a float64 scalar."""
        return self._fitted[-1]

    def fit_features(self, features: Tensor, labels: Tensor) -> None:
        """Fit the logistic regression; see `FeatureDetector.fit_features`."""
        fit = fit_logistic(features, labels, self.standardize)
        self._fitted = torch.cat((fit.weight, fit.bias[None]))

    def score_features(self, features: Tensor) -> Tensor:
        """Return the log-odds of machine, ``(n,)``; see `FeatureDetector.score_features`."""
        self.require_fitted()
        return features.double() @ self.weight + self.bias

    def get_extra_state(self) -> Tensor:
        """Return the fitted weights and bias for a checkpoint, float64 of shape ``(f + 1,)``, or ``(0,)`` before."""
        return self._fitted

    def set_extra_state(self, state: Tensor) -> None:
        """Load the fitted weights and bias from a checkpoint."""
        self._fitted = state.detach().cpu().double()
