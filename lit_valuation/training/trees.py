"""Tree classifiers for tables, from scikit-learn, with depth and number of trees chosen on validation data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from lightning_utilities.core.imports import RequirementCache
from torch import Tensor

from lit_core.errors import UserError
from lit_core.seeds import part_seed
from lit_valuation.samples import Samples

Kind = Literal["tree", "forest", "boosting"]

#: Sizes to choose from, the smallest first, as in Sarwar et al. 2024, with gradient boosting instead of XGBoost.
SIZES: dict[Kind, tuple[Mapping[str, int], ...]] = {
    "tree": tuple({"max_depth": depth} for depth in (3, 5, 7, 10)),
    "forest": tuple({"n_estimators": trees} for trees in (50, 100, 300)),
    "boosting": tuple({"max_depth": depth, "max_iter": rounds} for depth in (3, 6) for rounds in (30, 100)),
}


@dataclass(frozen=True)
class Trees:
    """A fitted classifier of scikit-learn.

    Args:
        model: The classifier of scikit-learn.
        classes: Names of the classes, in the order of their indices; the classifier may know fewer.
        size: The chosen depth or number of trees.
    """

    model: Any
    classes: tuple[str, ...]
    size: Mapping[str, int]

    def probabilities(self, x: Tensor) -> Tensor:
        """Return the probability of each class, ``(n, classes)``; 0 for classes that were not in the training data.

        Args:
            x: Rows ``(n, columns)``; other shapes are flattened.
        """
        of_known = torch.from_numpy(self.model.predict_proba(_rows(x))).float()
        of_all = torch.zeros(len(of_known), len(self.classes))
        of_all[:, torch.from_numpy(self.model.classes_)] = of_known
        return of_all

    def accuracy(self, samples: Samples) -> float:
        """Return the share of samples that are classified correctly, from 0 to 1."""
        return float((self.probabilities(samples.x).argmax(dim=1) == samples.y).double().mean())


def fit_trees(
    train: Samples, validation: Samples, kind: Kind = "tree", seed: int | None = None, weights: Tensor | None = None
) -> Trees:
    """Fit trees of several sizes and return those with the highest accuracy on the validation data.

    Args:
        train: Samples to fit; missing values are allowed.
        validation: Samples to choose the size by, never test samples. Of equal accuracies the smallest size is taken.
        kind: One ``tree``, a ``forest``, or ``boosting``: histogram gradient boosting.
        seed: Seed of the method's random choices; None takes that of the run.
        weights: Weight of each training sample, of shape ``(n,)``; None for 1 each.

    Returns:
        The classifier.

    Raises:
        UserError: If scikit-learn is not installed, a set is empty, or the classes of the sets differ.
    """
    for name, samples in (("train", train), ("validation", validation)):
        if not len(samples):
            raise UserError(f"{name} has no samples; trees need some to fit and some to choose their size by.")
    if train.classes != validation.classes:
        raise UserError(
            f"validation numbers the classes {', '.join(validation.classes)}, but train {', '.join(train.classes)}; "
            "renumber one of them."
        )
    make, seed = _classifier(kind), part_seed(seed)
    given = None if weights is None else weights.numpy()
    fitted = [
        Trees(make(random_state=seed, **size).fit(_rows(train.x), train.y.numpy(), given), train.classes, size)
        for size in SIZES[kind]
    ]
    return max(fitted, key=lambda trees: trees.accuracy(validation))


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
