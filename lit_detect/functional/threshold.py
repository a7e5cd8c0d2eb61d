"""How well scores tell machine from human: thresholds at a false-positive rate, AUROC, precision, recall, F1.

Everywhere a higher score is machine, and the decision is ``score >= threshold``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lit_core.errors import UserError
from lit_detect.records import HUMAN, MACHINE

CLASSES = {"human": HUMAN, "machine": MACHINE}


def check_finite(scores: Tensor, name: str = "scores") -> None:
    """Refuse scores of which one is not a finite number.

    Args:
        scores: Scores of texts, ``(n,)``.
        name: What they are called in the sentence.
    """
    wrong = int((~torch.isfinite(scores)).sum())
    if wrong:
        raise UserError(
            f"{name}: {wrong} of {len(scores)} are not finite numbers, so nothing can be ranked; mend the detector, or "
            "leave those texts out."
        )


def check_scores(scores: Tensor, name: str = "scores") -> None:
    """Refuse scores that rank nothing.

    Args:
        scores: Scores of texts, ``(n,)``.
        name: What they are called in the sentence.

    Raises:
        UserError: If one is not a finite number, or two or more are all the same.
    """
    check_finite(scores, name)
    if len(scores) > 1 and bool((scores == scores[0]).all()):
        raise UserError(
            f"{name}: all {len(scores)} are {float(scores[0]):g}, but texts must be told apart; use a detector whose "
            "scores differ."
        )


def check_fpr(fpr: float) -> None:
    """Refuse a false-positive rate below 0, or of 1 and more."""
    if not 0 <= fpr < 1:
        raise UserError(f"`fpr` is {fpr}, but it is a share of human texts; give 0 to below 1, such as 0.01.")


def threshold_at_fpr(human: Tensor, fpr: float) -> float:
    """Return the smallest threshold at which no more than the wanted share of human texts counts as machine.

    It is the exact quantile with a rule for ties: the smallest float64 t such that the share of human scores >= t is at
    most ``fpr``. Human texts that share a score are all on one side, so with ties or few texts the share that is
    reached, `false_positive_rate`, is smaller than the wanted one. As t is the next number above a human score, any
    other text that scores higher is machine.

    Args:
        human: Scores of human texts, float64 ``(n,)``, one or more.
        fpr: Wanted false-positive rate, 0 to below 1.

    Raises:
        UserError: If there are no scores, one is not finite, or the rate is out of its range.
    """
    check_fpr(fpr)
    if not len(human):
        raise UserError("There is no human text, so no false-positive rate can be kept; give some.")
    check_finite(human, "scores of human texts")
    n = len(human)
    allowed = math.floor(fpr * n)
    allowed += (allowed + 1) / n <= fpr  # the product may be rounded down: 0.29 * 100 is below 29
    below = human.double().sort(descending=True).values[allowed]
    return math.nextafter(float(below), math.inf)


def false_positive_rate(human: Tensor, threshold: float) -> float:
    """Return the share of human scores at the threshold or above; NaN where there are none."""
    return float((human.double() >= threshold).double().mean())


def tpr_at_fpr(human: Tensor, machine: Tensor, fpr: float) -> tuple[float, float]:
    """Return the share of machine texts found at a false-positive rate, and the rate that is achieved.

    Args:
        human: Scores of human texts, one or more.
        machine: Scores of machine texts, one or more.
        fpr: Wanted false-positive rate; see `threshold_at_fpr` for the rule.

    Raises:
        UserError: If the scores are not finite, or all the same.
    """
    check_scores(torch.cat((human, machine)))
    threshold = threshold_at_fpr(human, fpr)
    return false_positive_rate(machine, threshold), false_positive_rate(human, threshold)


def auroc(human: Tensor, machine: Tensor) -> float:
    """Return the chance that a machine text scores above a human one, where a tie counts half.

    Args:
        human: Scores of human texts, one or more.
        machine: Scores of machine texts, one or more.

    Raises:
        UserError: If the scores are not finite, or all the same.
    """
    check_scores(torch.cat((human, machine)))
    ordered, machine = human.double().sort().values, machine.double()
    below = torch.searchsorted(ordered, machine, side="left")
    not_above = torch.searchsorted(ordered, machine, side="right")
    return float((below + not_above).sum()) / (2 * len(human) * len(machine))


def class_scores(decisions: Tensor, labels: Tensor) -> dict[str, float]:
    """Return accuracy, and precision, recall and F1 of each class.

    Args:
        decisions: 0 human, 1 machine, ``(n,)``; bool or whole numbers.
        labels: 0 human, 1 machine, ``(n,)``.

    Returns:
        ``accuracy`` and ``{precision,recall,f1}/{human,machine}``, 0 to 1; NaN where its denominator is 0.
    """
    values = {"accuracy": _ratio(int((decisions == labels).sum()), len(labels))}
    for name, number in CLASSES.items():
        chosen, true = decisions == number, labels == number
        hits, said, are = int((chosen & true).sum()), int(chosen.sum()), int(true.sum())
        values[f"precision/{name}"] = _ratio(hits, said)
        values[f"recall/{name}"] = _ratio(hits, are)
        values[f"f1/{name}"] = _ratio(2 * hits, said + are)
    return values


def paired_accuracy(scores: Tensor, labels: Tensor, pairs: Tensor) -> float:
    """Return how often a machine text scores above its own human twin, where a tie counts half.

    After the paired accuracy of Zellers et al. 2019 (GROVER); the unpaired one is the ``accuracy`` of `class_scores`.

    Args:
        scores: Scores of texts, ``(n,)``.
        labels: 0 human, 1 machine, ``(n,)``.
        pairs: Number of the pair that each text belongs to, ``(n,)``; a pair may hold several texts of a class, and
            then counts once, as the mean over all its twins.

    Returns:
        The mean over the pairs that hold both classes; NaN where there is none.
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
