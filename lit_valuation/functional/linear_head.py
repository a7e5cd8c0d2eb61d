"""A linear classifier of features, fitted to the optimum, and groups of gradients at it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_core.errors import RunFailure

#: Most steps of Newton's method, and of conjugate gradients for each; shortest part of a step that is tried.
_MOST_STEPS, _MOST_CONJUGATE, _SHORTEST = 200, 500, 1e-10
#: Largest gradient of the mean loss at which the fit ends, and at which it may end for rounding, per unit of features.
_FLAT, _FLAT_BUT_FOR_ROUNDING = 1e-8, 1e-6


def fit_linear_head(features: Tensor, y: Tensor, n_classes: int) -> tuple[Tensor, Tensor]:
    """Return weight and bias of the multinomial logistic regression of classes on features.

    Its loss is the summed cross-entropy plus ‖W‖² / 2, as in scikit-learn with C = 1; the bias is not penalised. It is
    minimised by Newton's method, whose steps are solved by conjugate gradients (Nocedal and Wright 2006,
    Algorithm 7.1).

    Args:
        features: Features of n samples, ``(n, d)``.
        y: Class indices, int64 of shape ``(n,)``.
        n_classes: C, the number of classes; some may have no sample.

    Returns:
        Weight ``(C, d)`` and bias ``(C,)``, float32.

    Raises:
        RunFailure: If the loss is not finite, or its minimum is not found.
    """
    mean = features.double().mean(0)  # the optimum is the same, and is found where columns have an offset
    x = torch.cat([features.double() - mean, torch.ones(len(y), 1, dtype=torch.float64)], dim=1)
    penalty = torch.full((x.shape[1],), 1 / len(y), dtype=torch.float64)
    penalty[-1] = 0
    wanted = F.one_hot(y, n_classes).double()
    head = torch.zeros(n_classes, x.shape[1], dtype=torch.float64)
    value, slope, log_p = _regression(head, x, wanted, penalty)
    for _ in range(_MOST_STEPS):
        if not bool(value.isfinite() & slope.isfinite().all()):
            raise RunFailure("The loss of the linear head became infinite; check the encoder's features.")
        if float(slope.abs().max()) <= _FLAT:
            break
        step = _newton_step(x, log_p.exp(), penalty, slope)
        descent, size = float((step * slope).sum()), 1.0
        while size > _SHORTEST:
            found = _regression(head + size * step, x, wanted, penalty)
            if bool(found[0] <= value + 1e-4 * size * descent):
                break
            size /= 2
        else:  # no step is better but for rounding
            break
        head, (value, slope, log_p) = head + size * step, found
    if not float(slope.abs().max()) <= _FLAT_BUT_FOR_ROUNDING * max(1.0, float(x.abs().max())):
        raise RunFailure("The minimum of the linear head's loss was not found; scale the encoder's features.")
    weight, bias = head[:, :-1], head[:, -1] - head[:, :-1] @ mean
    return weight.float(), (bias - bias.mean()).float()  # a shift of all biases changes no probability


def _regression(head: Tensor, x: Tensor, wanted: Tensor, penalty: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mean loss of a head, its gradient, and the log-probabilities of the classes."""
    log_p = (x @ head.T).log_softmax(1)
    value = -(log_p * wanted).sum() / len(x) + (head.square() * penalty).sum() / 2
    return value, (log_p.exp() - wanted).T @ x / len(x) + head * penalty, log_p


def _newton_step(x: Tensor, p: Tensor, penalty: Tensor, slope: Tensor) -> Tensor:
    """Return -H⁻¹ slope by conjugate gradients, the more exactly the smaller the slope is."""
    step, left = torch.zeros_like(slope), -slope
    direction, squared = left.clone(), left.square().sum()
    norm = float(squared.sqrt())
    enough = min(0.1, norm**0.5) * norm
    for _ in range(_MOST_CONJUGATE):
        outputs = x @ direction.T
        curved = p * (outputs - (p * outputs).sum(1, keepdim=True))
        product = curved.T @ x / len(x) + direction * penalty
        length = squared / (direction * product).sum()
        step += length * direction
        left = left - length * product
        before, squared = squared, left.square().sum()
        if float(squared.sqrt()) <= enough:
            break
        direction = left + squared / before * direction
    return step


def principal_groups(gram: Tensor, most: int, fewest: int) -> Tensor:
    """Divide points into groups of similar ones, each by halves along its principal axis, the largest first.

    This is principal direction divisive partitioning (Boley 1998), with halves of equal size.

    Args:
        gram: Inner products of n points, ``(n, n)``.
        most: Most groups, 1 or more.
        fewest: Fewest points of a group, 1 or more; with fewer than twice as many, a group is not divided.

    Returns:
        Group of each point, int64 of shape ``(n,)``, from 0 on.
    """
    groups = [torch.arange(len(gram))]
    while len(groups) < most:
        largest = max(range(len(groups)), key=lambda index: len(groups[index]))
        rows = groups[largest]
        if len(rows) < 2 * fewest:
            break
        own = gram[rows][:, rows].double()
        centred = own - own.mean(0) - own.mean(1, keepdim=True) + own.mean()
        axis = torch.linalg.eigh(centred).eigenvectors[:, -1]
        order = rows[axis.argsort(stable=True)]
        groups[largest] = order[: len(rows) // 2].sort().values
        groups.append(order[len(rows) // 2 :].sort().values)
    labels = torch.empty(len(gram), dtype=torch.int64)
    for number, rows in enumerate(groups):
        labels[rows] = number
    return labels
