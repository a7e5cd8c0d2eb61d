"""Fully connected networks for tables and embeddings."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from lit_core.errors import UserError, check_at_least
from lit_core.origin import KeepsOrigin


class MLP(KeepsOrigin, nn.Module):
    """Fully connected layers with ReLU over the flattened input.

    Args:
        input_shape: Shape of one sample, such as ``(9,)`` or ``(1, 28, 28)``.
        n_classes: Number of classes, 1 or more.
        hidden: Widths of the hidden layers, each 1 or more; gradients are matched at the linear head after the last.
        dropout: Dropout probability of each hidden layer, from 0 to below 1.

    Raises:
        UserError: If a size is below 1, or the dropout is out of range.
    """

    def __init__(
        self, input_shape: Sequence[int], n_classes: int, hidden: Sequence[int] = (128,), dropout: float = 0.0
    ) -> None:
        super().__init__()
        check_sizes(input_shape, n_classes, "hidden", hidden, dropout)
        layers: list[nn.Module] = [nn.Flatten()]
        width = math.prod(input_shape)
        for size in hidden:
            layers += [nn.Linear(width, size), nn.ReLU(), *([nn.Dropout(dropout)] if dropout else [])]
            width = size
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(width, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(batch, classes)``."""
        logits: Tensor = self.head(self.body(x))
        return logits


class LinearHead(MLP):
    """A linear layer over the flattened input (logistic regression), for embeddings of a frozen encoder.

    Args:
        input_shape: Shape of one sample, such as ``(384,)``.
        n_classes: Number of classes, 1 or more.
    """

    def __init__(self, input_shape: Sequence[int], n_classes: int) -> None:
        super().__init__(input_shape, n_classes, hidden=())


def check_sizes(
    input_shape: Sequence[int], n_classes: int, argument: str, sizes: Sequence[int], dropout: float
) -> None:
    """Check arguments that the networks share.

    Args:
        input_shape: Shape of one sample.
        n_classes: Number of classes.
        argument: Name of the argument with the widths, for messages.
        sizes: Widths of layers.
        dropout: Dropout probability.

    Raises:
        UserError: If a size is below 1, or the dropout is out of range.
    """
    check_at_least(1, n_classes=n_classes)
    for name, numbers in (("input_shape", input_shape), (argument, sizes)):
        for number in numbers:
            check_at_least(1, **{name: number})
    if not 0 <= dropout < 1:
        raise UserError(f"`dropout` is {dropout}, but must be a probability; give 0 to below 1.")
