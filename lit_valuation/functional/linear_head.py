"""A linear classifier of features, fitted to the optimum, and groups of gradients at it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_core.errors import RunFailure


def fit_linear_head(features: Tensor, y: Tensor, n_classes: int, steps: int = 1000) -> tuple[Tensor, Tensor]:
    """Return weight and bias of the multinomial logistic regression of classes on features.

    Its loss is the summed cross-entropy plus ‖W‖² / 2, as in scikit-learn with C = 1; the bias is not penalised.

    Args:
        features: Features of n samples, ``(n, d)``.
        y: Class indices, int64 of shape ``(n,)``.
        n_classes: C, the number of classes; some may have no sample.
        steps: Most iterations of L-BFGS, 1 or more.

    Returns:
        Weight ``(C, d)`` and bias ``(C,)``, float32.

    Raises:
        RunFailure: If the loss is not finite.
    """
    mean = features.double().mean(0)
    x = features.double() - mean  # the optimum is the same, and is found where columns have an offset
    weight = torch.zeros(n_classes, x.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(n_classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=steps, tolerance_grad=1e-8, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        found = F.cross_entropy(x @ weight.T + bias, y) + weight.square().sum() / (2 * len(y))
        found.backward()
        return found

    with torch.enable_grad():
        optimizer.step(loss)
    if not bool(weight.isfinite().all() and bias.isfinite().all()):
        raise RunFailure("The loss of the linear head became infinite; check the encoder's features.")
    weight, bias = weight.detach(), bias.detach() - weight.detach() @ mean
    return weight.float(), (bias - bias.mean()).float()  # a shift of all biases changes no probability


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
