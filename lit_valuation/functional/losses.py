"""The loss and the score of each sample under the three losses of a linear last layer, also over positions of texts.

Shape suffixes: N samples, T positions, C outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_core.data.stream import IGNORED
from lit_valuation.functional.gradients import Loss, target_values
from lit_valuation.functional.token_gradients import Positions

#: Share of samples that count as hard where there are no classes, and so no mistakes: those with the largest losses.
WORST = 0.1


def sample_losses(outputs_NC: Tensor, targets: Tensor, loss: Loss, label_smoothing: float = 0.0) -> Tensor:
    """Return the loss of each sample, whose gradient `last_layer_gradients` returns.

    Args:
        outputs_NC: Outputs of the last layer, ``(n, C)``.
        targets: Class indices, ``(n,)``, or values of the outputs' shape. The loss of an index of -100 is 0.
        loss: ``cross_entropy``, in nats; ``logistic``, binary cross-entropy summed over the outputs, in nats;
            ``squared``, half the squared distance summed over the outputs.
        label_smoothing: Label smoothing of the cross-entropy, from 0 to 1.

    Returns:
        Losses, ``(n,)``.
    """
    if loss == "cross_entropy":
        return F.cross_entropy(outputs_NC, targets, label_smoothing=label_smoothing, reduction="none")
    wanted_NC = target_values(outputs_NC, targets)
    if loss == "logistic":
        return F.binary_cross_entropy_with_logits(outputs_NC, wanted_NC, reduction="none").sum(1)
    return (outputs_NC - wanted_NC).square().sum(1) / 2


def sample_scores(outputs_NC: Tensor, targets: Tensor, loss: Loss) -> Tensor:
    """Return how well each sample is predicted; higher is better.

    Args:
        outputs_NC: Outputs of the last layer, ``(n, C)``.
        targets: Class indices, ``(n,)``, or values of the outputs' shape.
        loss: The loss of the outputs.

    Returns:
        Scores, ``(n,)``: with ``cross_entropy`` 1 if the largest output is that of the class and otherwise 0; with
        ``logistic`` the share of outputs on the right side of 0; with ``squared`` minus the mean squared error.
    """
    if loss == "cross_entropy":
        return (outputs_NC.argmax(1) == targets).to(torch.float32)
    wanted_NC = target_values(outputs_NC, targets)
    if loss == "logistic":
        return ((outputs_NC > 0) == (wanted_NC > 0.5)).to(torch.float32).mean(1)
    return -(outputs_NC - wanted_NC).square().mean(1)


def token_losses(outputs_NTC: Tensor, targets_NT: Tensor, positions: Positions, label_smoothing: float = 0.0) -> Tensor:
    """Return each sample's cross-entropy, whose gradient `token_gradients` returns, in nats, ``(n,)``.

    Args:
        outputs_NTC: Outputs of the last layer at each position, ``(n, positions, C)``.
        targets_NT: Index of the wanted output at each position, int64 of shape ``(n, positions)``; -100 where none
            counts. The loss of a sample without any is 0.
        positions: Whether it is the mean or the sum over the positions that count.
        label_smoothing: Label smoothing, from 0 to 1.
    """
    flat = outputs_NTC.flatten(0, 1), targets_NT.flatten()
    losses = F.cross_entropy(*flat, label_smoothing=label_smoothing, reduction="none").view_as(targets_NT).sum(1)
    return losses if positions == "sum" else losses / (targets_NT != IGNORED).sum(1).clamp(min=1)


def token_accuracies(outputs_NTC: Tensor, targets_NT: Tensor) -> Tensor:
    """Return the share of the counted positions of each sample at which the largest output is the wanted one, ``(n,)``.

    Args:
        outputs_NTC: As in `token_losses`.
        targets_NT: As in `token_losses`.
    """
    right = (outputs_NTC.argmax(2) == targets_NT).sum(1)  # no output has the index -100
    return right / (targets_NT != IGNORED).sum(1).clamp(min=1)
