"""Trees as classifiers of tables: those of scikit-learn, with depth and size chosen on validation data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from lightning_utilities.core.imports import RequirementCache
from torch import Tensor

from lit_core.errors import UserError
from lit_valuation.samples import Samples

Kind = Literal["tree", "forest", "boosting"]

#: Sizes that are tried, the smallest first: those of Sarwar et al. 2024, with boosted trees in place of XGBoost.
SIZES: dict[Kind, tuple[Mapping[str, int], ...]] = {
    "tree": tuple({"max_depth": depth} for depth in (3, 5, 7, 10)),
    "forest": tuple({"n_estimators": trees} for trees in (50, 100, 300)),
    "boosting": tuple({"max_depth": depth, "max_iter": rounds} for depth in (3, 6) for rounds in (30, 100)),
}


@dataclass(frozen=True)
class Trees:
    """A fitted classifier of scikit-learn.

    Args:
        model: The classifier.
        classes: Names of the classes by number; the model may know fewer.
        size: Its depth or number of trees.
    """

    model: Any
    classes: tuple[str, ...]
    size: Mapping[str, int]

    def probabilities(self, x: Tensor) -> Tensor:
        """Return the probability of each class, ``(n, classes)``; 0 for those that were never seen in training.

        Args:
            x: Rows ``(n, columns)``; other shapes are flattened.
        """
        known = torch.from_numpy(self.model.predict_proba(_rows(x))).float()
        every = torch.zeros(len(known), len(self.classes))
        every[:, torch.from_numpy(self.model.classes_)] = known
        return every

    def accuracy(self, samples: Samples) -> float:
        """Return the share of samples whose likeliest class is theirs."""
        return float((self.probabilities(samples.x).argmax(dim=1) == samples.y).double().mean())


def fit_trees(train: Samples, validation: Samples, kind: Kind = "tree", seed: int = 0) -> Trees:
    """Fit trees of several sizes and keep the one that is right most often on the validation data.

    Args:
        train: Samples to fit; missing values are allowed.
        validation: Samples to choose the size by, never those of a test. Of equals the smallest size is kept.
        kind: One ``tree``, a ``forest``, or ``boosting``: histogram gradient boosting.
        seed: Seed of what the method draws.

    Returns:
        The classifier.

    Raises:
        UserError: If scikit-learn is missing, a set is empty, or the sets name classes differently.
    """
    for name, samples in (("train", train), ("validation", validation)):
        if not len(samples):
            raise UserError(f"{name} has no samples; trees need some to fit and some to choose their size by.")
    if train.classes != validation.classes:
        raise UserError(
            f"validation numbers the classes {', '.join(validation.classes)}, but train {', '.join(train.classes)}; "
            "renumber one of them."
        )
    make = _classifier(kind)
    found = [
        Trees(make(random_state=seed, **size).fit(_rows(train.x), train.y.numpy()), train.classes, size)
        for size in SIZES[kind]
    ]
    return max(found, key=lambda trees: trees.accuracy(validation))


def _classifier(kind: Kind) -> Any:
    if not RequirementCache("scikit-learn>=1.4"):
        raise UserError('Trees need `scikit-learn`; install it with `pip install "lit-shift[valuation]"`.')
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.tree import DecisionTreeClassifier

    classifiers = {
        "tree": DecisionTreeClassifier,
        "forest": RandomForestClassifier,
        "boosting": HistGradientBoostingClassifier,
    }
    return classifiers[kind]


def _rows(x: Tensor) -> np.ndarray:
    return x.flatten(1).float().numpy()
