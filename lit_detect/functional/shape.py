"""Baselines that detect machine text by its formatting or its characters alone, as a test for leaks in a data set.

Both are logistic regressions on character 1- to 3-grams (Solaiman et al. 2019, arXiv 1908.09203, do the same with
words). One reads only the shape of a text. If it succeeds, the way the texts were made leaks into their formatting.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from lightning_utilities.core.imports import RequirementCache
from torch import Tensor

from lit_core.errors import UserError
from lit_core.statistics.interval import Interval
from lit_core.statistics.roc import auroc_interval
from lit_detect.records import MACHINE

_DIGIT, _LETTER = re.compile(r"\d"), re.compile(r"[^\W\d_]")
#: AUROC of shapes above which the formatting counts as a leak.
LEAK = 0.60


def shape(text: str) -> str:
    """Return a text with each letter replaced by ``a`` and each digit by ``0``.

    Example:
        >>> shape('"No," he said, 3 times.')
        '"aa," aa aaaa, 0 aaaaa.'
    """
    return _LETTER.sub("a", _DIGIT.sub("0", text))


def character_scores(
    texts: Sequence[str],
    labels: Sequence[int],
    groups: Sequence[str],
    of: Literal["shapes", "texts"],
    folds: int = 5,
    seed: int = 0,
) -> Tensor:
    """Return the cross-validated scores of a classifier on character 1- to 3-grams, with folds divided by document.

    The classifier is a logistic regression with C = 1 on TF-IDF with sublinear counts. Each text is scored by the
    classifier that was fitted without the fold of its group.

    Args:
        texts: The texts.
        labels: 0 human, 1 machine.
        groups: Document of each text, such as its ``pair_id``; all its texts are in the same fold.
        of: Input of the classifier: the shapes of the texts, or the texts.
        folds: Number of folds, 2 or more.
        seed: Seed of the folds.

    Returns:
        Log-odds of machine of each text, ``(n,)``.

    Raises:
        UserError: If scikit-learn is missing, or there are fewer documents with both classes than folds.
    """
    if not RequirementCache("scikit-learn>=1.4"):
        raise UserError('The leak test needs `scikit-learn>=1.4`; install it with `pip install "lit-shift[detect]"`.')
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline

    seen = [shape(text) for text in texts] if of == "shapes" else list(texts)
    y, names = np.asarray(labels), np.unique(np.asarray(groups), return_inverse=True)[1]
    fewest = min(len(set(names[y == number])) for number in (0, 1))
    if fewest < folds:
        raise UserError(
            f"The leak test has {fewest} documents with texts of a class, but needs {folds}. Generate texts from more "
            "documents."
        )
    scores = np.empty(len(y))
    for train, test in StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(seen, y, names):
        model = make_pipeline(
            TfidfVectorizer(analyzer="char", ngram_range=(1, 3), lowercase=False, sublinear_tf=True),
            LogisticRegression(max_iter=1000),
        )
        model.fit([seen[i] for i in train], y[train])
        scores[test] = model.decision_function([seen[i] for i in test])
    return torch.from_numpy(scores)


def character_auroc(
    texts: Sequence[str], labels: Sequence[int], groups: Sequence[str], of: Literal["shapes", "texts"]
) -> Interval:
    """Return the AUROC of `character_scores` in five folds, with its 95 % interval over documents.

    Args:
        texts: The texts.
        labels: 0 human, 1 machine.
        groups: Document of each text.
        of: Input of the classifier: the shapes of the texts, or the texts.
    """
    numbers = torch.from_numpy(np.unique(np.asarray(groups), return_inverse=True)[1])
    return auroc_interval(character_scores(texts, labels, groups, of), torch.tensor(labels) == MACHINE, numbers)
