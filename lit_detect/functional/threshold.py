"""Measures of detection from scores: AUROC, precision, recall, F1.

A higher score means machine, and a text is decided to be machine if ``score >= threshold``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lit_core.errors import UserError
from lit_detect.records import HUMAN, MACHINE

CLASSES = {"human": HUMAN, "machine": MACHINE}


def check_finite(scores: Tensor, name: str = "scores") -> None:
    """Raise an error if a score is not a finite number.

    Args:
        scores: Scores of texts, ``(n,)``.
        name: Name of the scores in the error message.

    Raises:
        UserError: If a score is infinite or NaN.
    """
    wrong = int((~torch.isfinite(scores)).sum())
    if wrong:
        raise UserError(
            f"{name}: {wrong} of {len(scores)} are not finite numbers and cannot be ranked. Fix the detector, or leave "
            "these texts out."
        )


def check_scores(scores: Tensor, name: str = "scores") -> None:
    """Raise an error if scores cannot rank texts.

    Args:
        scores: Scores of texts, ``(n,)``.
        name: Name of the scores in the error message.

    Raises:
        UserError: If a score is infinite or NaN, or if there are several scores and all are equal.
    """
    check_finite(scores, name)
    if len(scores) > 1 and bool((scores == scores[0]).all()):
        raise UserError(
            f"{name}: all {len(scores)} are {float(scores[0]):g}, but scores must differ between texts. Use another "
            "detector."
        )


def share_above(scores: Tensor, threshold: float) -> float:
    """Return the share of scores at or above a threshold, from 0 to 1; NaN if there are no scores."""
    return float((scores.double() >= threshold).double().mean())


def auroc(human: Tensor, machine: Tensor) -> float:
    """Return the AUROC, the probability that a machine text scores above a human text, where a tie counts half.

    Args:
        human: Scores of human texts, one or more.
        machine: Scores of machine texts, one or more.

    Raises:
        UserError: If the scores are not finite, or all equal.
    """
    check_scores(torch.cat((human, machine)))
    ordered, machine = human.double().sort().values, machine.double()
    below = torch.searchsorted(ordered, machine, side="left")
    not_above = torch.searchsorted(ordered, machine, side="right")
    return float((below + not_above).sum()) / (2 * len(human) * len(machine))


def class_scores(decisions: Tensor, labels: Tensor) -> dict[str, float]:
    """Return accuracy, and precision, recall and F1 of each class.

    Args:
        decisions: 0 human, 1 machine, ``(n,)``; bool or integers.
        labels: 0 human, 1 machine, ``(n,)``.

    Returns:
        ``accuracy`` and ``{precision,recall,f1}/{human,machine}``, from 0 to 1; NaN if the denominator is 0.
    """
    values = {"accuracy": _ratio(int((decisions == labels).sum()), len(labels))}
    for name, number in CLASSES.items():
        predicted, true = decisions == number, labels == number
        hits, n_predicted, n_true = int((predicted & true).sum()), int(predicted.sum()), int(true.sum())
        values[f"precision/{name}"] = _ratio(hits, n_predicted)
        values[f"recall/{name}"] = _ratio(hits, n_true)
        values[f"f1/{name}"] = _ratio(2 * hits, n_predicted + n_true)
    return values


def paired_accuracy(scores: Tensor, labels: Tensor, pairs: Tensor) -> float:
    """Return the share of pairs in which the machine text scores above its human twin, where a tie counts half.

    This is the paired accuracy of Zellers et al. 2019 (GROVER). The unpaired one is the ``accuracy`` of `class_scores`.

    Args:
        scores: Scores of texts, ``(n,)``.
        labels: 0 human, 1 machine, ``(n,)``.
        pairs: Id of the pair of each text, ``(n,)``. A pair may have several texts of a class; it then counts once, as
            the mean over all combinations.

    Returns:
        The mean over the pairs with texts of both classes, from 0 to 1; NaN if there is no such pair.
    """
    check_scores(scores)
    order = pairs.argsort(stable=True)
    sizes = torch.unique_consecutive(pairs[order], return_counts=True)[1].tolist()
    shares = []
    for own, kinds in zip(scores.double()[order].split(sizes), labels[order].split(sizes), strict=True):
        difference = own[kinds == MACHINE][:, None] - own[kinds == HUMAN][None, :]
        if difference.numel():
            shares.append(float((difference.sign() + 1).mean()) / 2)
    return _ratio(sum(shares), len(shares))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
