"""Logistic regression on features, shared by the detectors whose features need no gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_core.errors import UserError
from lit_detect.detectors.base import FeatureDetector
from lit_detect.functional.logistic import fit_logistic


class LinearFeatureDetector(FeatureDetector):
    """A logistic regression on the features that a subclass makes; see `lit_detect.functional.logistic`.

    What is fitted is one float64 tensor of as many numbers as there are features, and one more. It travels with the
    checkpoint as the module's extra state and not as a buffer, since a buffer would follow the module to half precision
    or to a device without float64.

    Attributes:
        standardize: Whether features are divided by their standard deviation before they are penalised.
    """

    standardize: bool = True

    def __init__(self) -> None:
        super().__init__()
        self._fitted = torch.empty(0, dtype=torch.float64)

    @property
    def is_fitted(self) -> bool:
        """Whether `fit_features` was called, or a checkpoint loaded."""
        return self._fitted.numel() > 0

    @property
    def weight(self) -> Tensor:
        """Weight of each feature as it is, ``(f,)``."""
        return self._fitted[:-1]

    @property
    def bias(self) -> Tensor:
        """The logit of machine where all features are 0."""
        return self._fitted[-1]

    def fit_features(self, features: Tensor, labels: Tensor) -> None:
        """Fit the logistic regression; see `FeatureDetector.fit_features`."""
        found = fit_logistic(features, labels, self.standardize)
        self._fitted = torch.cat((found.weight, found.bias[None]))

    def score_features(self, features: Tensor) -> Tensor:
        """Return the logits of machine ``(n,)``; see `FeatureDetector.score_features`."""
        self.require_fitted()
        return features.double() @ self.weight + self.bias

    def require_fitted(self) -> None:
        """Refuse to score before `fit_features`."""
        if not self.is_fitted:
            raise UserError(
                f"{self.name} is not fitted yet; run `lit-detect fit` first, or give --ckpt_path of a run that did."
            )

    def get_extra_state(self) -> Tensor:
        """Return what was fitted, for the checkpoint."""
        return self._fitted

    def set_extra_state(self, state: Tensor) -> None:
        """Take what was fitted from a checkpoint."""
        self._fitted = state.detach().cpu().double()
