"""A small convolutional network for images."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from lit_core.errors import UserError
from lit_core.origin import KeepsOrigin
from lit_valuation.nn.mlp import check_sizes


class ConvNet(KeepsOrigin, nn.Module):
    """3 × 3 convolutions with ReLU and max-pooling, then a hidden layer and a linear head.

    There is no batch normalisation, because its statistics would depend on the number of devices.

    Args:
        input_shape: Channels, height and width of an image.
        n_classes: Number of classes, 1 or more.
        channels: Output channels of the convolutions, each 1 or more; each max-pooling halves height and width.
        hidden: Width of the layer before the head, 1 or more; gradients are matched at the head.
        dropout: Dropout probability of that layer, from 0 to below 1.

    Raises:
        UserError: If a size is below 1, the dropout is out of range, or the input is not an image.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        n_classes: int,
        channels: Sequence[int] = (16, 32),
        hidden: int = 64,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_sizes(input_shape, n_classes, "channels", channels, dropout)
        check_sizes(input_shape, n_classes, "hidden", [hidden], dropout)
        if len(input_shape) != 3:
            raise UserError(
                f"input_shape is {tuple(input_shape)}, but ConvNet takes images (channels, height, width); use MLP for "
                "tables and embeddings."
            )
        depth, height, width = input_shape
        layers: list[nn.Module] = []
        for size in channels:
            layers += [nn.Conv2d(depth, size, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)]
            depth, height, width = size, -(-height // 2), -(-width // 2)
        layers += [nn.Flatten(), nn.Linear(depth * height * width, hidden), nn.ReLU()]
        self.body = nn.Sequential(*layers, *([nn.Dropout(dropout)] if dropout else []))
        self.head = nn.Linear(hidden, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(batch, classes)``."""
        logits: Tensor = self.head(self.body(x))
        return logits
