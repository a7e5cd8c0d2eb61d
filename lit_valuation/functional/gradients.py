"""Per-sample gradients of a linear last layer, stored as two factors instead of as full matrices.

With outputs z = W h + b the gradient of a sample's loss by (W, b) is the outer product of δ = ∂loss/∂z and (h, 1), so
⟨g, g′⟩ = (δ·δ′)(h·h′ + 1): n (C + d) numbers replace n C (d + 1). Selection by last-layer gradients follows Killamsetty
et al. 2021, GRAD-MATCH, arXiv 2103.00123, and Sarwar et al. 2024, arXiv 2410.08432.

Shape suffixes: n samples, m other samples, C outputs, d width of the last layer's input.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_core.errors import UserError

Loss = Literal["cross_entropy", "logistic", "squared"]
Self = TypeVar("Self", bound="SampleGradients")


class SampleGradients(ABC):
    """Gradients of a linear last layer for n samples, in a form that gives inner products without full matrices."""

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def like(self) -> Tensor:
        """A tensor with the number format and the device of the gradients."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """Shape of the matrix that :meth:`sum` returns."""

    @abstractmethod
    def take(self: Self, indices: Tensor | Sequence[int]) -> Self:
        """Return the gradients at ``indices``, in that order."""

    @abstractmethod
    def gram(self: Self, other: Self) -> Tensor:
        """Return the inner products with all other gradients, of shape ``(n, m)``."""

    @abstractmethod
    def sum(self, weights: Tensor | None = None) -> Tensor:
        """Return the sum of the gradients, as a matrix, weighted by ``weights`` of shape ``(n,)`` if given."""

    @abstractmethod
    def dot(self, target: Tensor) -> Tensor:
        """Return each gradient's inner product with a matrix of the shape that :meth:`sum` returns, ``(n,)``."""

    @abstractmethod
    def squared_norms(self) -> Tensor:
        """Return the squared norm of each gradient, of shape ``(n,)``."""

    @abstractmethod
    def packed(self) -> Tensor:
        """Return what differs between the gradients as rows of numbers, ``(n, width)``, such as to send them."""

    @abstractmethod
    def unpacked(self: Self, rows: Tensor) -> Self:
        """Return the gradients of rows that :meth:`packed` returned, in the number format of the rows."""


@dataclass(frozen=True)
class LastLayerGradients(SampleGradients):
    """Gradients of the last layer for n samples, as factors.

    Args:
        delta: Gradients with respect to the outputs, of shape ``(n, C)``.
        hidden: Inputs of the last layer, of shape ``(n, d)``.
        bias: Whether the layer has a bias; its gradient is the last column of each matrix.

    Raises:
        UserError: If the numbers of samples differ or a value is not finite.
    """

    delta: Tensor
    hidden: Tensor
    bias: bool = True

    def __post_init__(self) -> None:
        if self.delta.ndim != 2 or self.hidden.ndim != 2 or len(self.delta) != len(self.hidden):
            raise UserError(
                f"delta has shape {tuple(self.delta.shape)} and hidden {tuple(self.hidden.shape)}; "
                "give two matrices with one row per sample."
            )
        for name, factor in (("delta", self.delta), ("hidden", self.hidden)):
            if factor.numel() and not all(bound.isfinite() for bound in factor.aminmax()):
                row = int((~factor.isfinite()).any(1).nonzero()[0])
                raise UserError(
                    f"The gradient of sample {row} is not finite (its {name} is not); "
                    "check the sample, and whether the model's training diverged."
                )

    def __len__(self) -> int:
        return len(self.delta)

    @property
    def like(self) -> Tensor:
        """A tensor with the number format and the device of the gradients."""
        return self.delta

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the matrix that :meth:`sum` returns."""
        return self.delta.shape[1], self.hidden.shape[1] + self.bias

    def packed(self) -> Tensor:
        """Return both factors of each gradient as a row, ``(n, C + d)``."""
        return torch.cat([self.delta, self.hidden], dim=1)

    def unpacked(self, rows: Tensor) -> LastLayerGradients:
        """Return the gradients of rows that :meth:`packed` returned, in the number format of the rows."""
        outputs = self.delta.shape[1]
        return replace(self, delta=rows[:, :outputs], hidden=rows[:, outputs:])

    def take(self, indices: Tensor | Sequence[int]) -> LastLayerGradients:
        """Return the gradients at ``indices``, in that order."""
        chosen = torch.as_tensor(indices, dtype=torch.int64, device=self.delta.device)
        return replace(self, delta=self.delta[chosen], hidden=self.hidden[chosen])

    def gram(self, other: LastLayerGradients) -> Tensor:
        """Return the inner products with all other gradients, of shape ``(n, m)``."""
        return (self.hidden @ other.hidden.T).add_(float(self.bias)).mul_(self.delta @ other.delta.T)

    def sum(self, weights: Tensor | None = None) -> Tensor:
        """Return the weighted sum of the gradients.

        Args:
            weights: Weight of each sample, ``(n,)``; None for ones.

        Returns:
            A matrix of shape ``(C, d)`` or, with bias, ``(C, d + 1)``.
        """
        delta = self.delta if weights is None else self.delta * weights.to(self.delta)[:, None]
        total = delta.T @ self.hidden
        return torch.cat([total, delta.sum(0)[:, None]], dim=1) if self.bias else total

    def dot(self, target: Tensor) -> Tensor:
        """Return each gradient's inner product with a matrix of the shape that :meth:`sum` returns, ``(n,)``."""
        target = target.to(self.hidden)
        outputs = self.hidden @ target[:, : self.hidden.shape[1]].T
        if self.bias:
            outputs += target[:, -1]
        return outputs.mul_(self.delta).sum(1)

    def squared_norms(self) -> Tensor:
        """Return the squared norm of each gradient, of shape ``(n,)``."""
        hidden = torch.linalg.vector_norm(self.hidden, dim=1).square() + float(self.bias)
        return hidden * torch.linalg.vector_norm(self.delta, dim=1).square()


def last_layer_gradients(
    outputs: Tensor,
    hidden: Tensor,
    targets: Tensor,
    loss: Loss = "cross_entropy",
    label_smoothing: float = 0.0,
    bias: bool = True,
) -> LastLayerGradients:
    """Return the gradient of each sample's own loss with respect to a linear last layer.

    Args:
        outputs: Outputs of the layer, before softmax or sigmoid, of shape ``(n, C)``.
        hidden: Inputs of the layer, of shape ``(n, d)``.
        targets: Class indices, ``(n,)``, or values of the outputs' shape.
        loss: ``cross_entropy``; ``logistic``, binary cross-entropy summed over the outputs; ``squared``, half the
            squared distance summed over the outputs.
        label_smoothing: Share of the target that is spread evenly over the classes, as in PyTorch's cross-entropy,
            from 0 to 1.
        bias: Whether the layer has a bias.

    Returns:
        The gradients as factors, in float32 or the higher precision of the inputs.

    Raises:
        UserError: If the loss is unknown, does not support smoothing, or shapes do not match.
    """
    if loss not in ("cross_entropy", "logistic", "squared"):
        raise UserError(f"loss is {loss!r}, but must be cross_entropy, logistic or squared; choose one of them.")
    if label_smoothing and (loss != "cross_entropy" or not 0 <= label_smoothing <= 1):
        raise UserError(
            f"label_smoothing is {label_smoothing} with the {loss} loss; set it to 0, or, with cross_entropy, up to 1."
        )
    dtype = torch.promote_types(torch.promote_types(outputs.dtype, hidden.dtype), torch.float32)
    outputs, hidden = outputs.detach().to(dtype), hidden.detach().to(dtype)
    desired = target_values(outputs, targets)
    if loss == "cross_entropy":
        desired = desired * (1 - label_smoothing) + label_smoothing / outputs.shape[1]
        return LastLayerGradients(outputs.softmax(1) - desired, hidden, bias)
    return LastLayerGradients((outputs.sigmoid() if loss == "logistic" else outputs) - desired, hidden, bias)


def target_values(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the target value of each output, ``(n, C)``; class indices become one-hot rows.

    Args:
        outputs: Outputs of the layer, ``(n, C)``.
        targets: Class indices, ``(n,)``, or values of the outputs' shape.

    Raises:
        UserError: If they are neither.
    """
    n, width = outputs.shape
    if targets.shape == outputs.shape or (width == 1 and targets.shape == (n,)):
        return targets.to(outputs).reshape(n, width)
    if targets.shape != (n,) or targets.is_floating_point():
        raise UserError(
            f"targets is {targets.dtype} of shape {tuple(targets.shape)} for outputs of shape {(n, width)}; "
            "give one class index per sample, or one value per output."
        )
    if n and not 0 <= int(targets.min()) <= int(targets.max()) < width:
        raise UserError(
            f"targets runs from {int(targets.min())} to {int(targets.max())}, but the model has {width} outputs; "
            "use the model's class indices."
        )
    return F.one_hot(targets.long(), width).to(outputs)
