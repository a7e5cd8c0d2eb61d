"""Loss, accuracy and recall of a classifier on a named set, exact over batches and devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lit_core.errors import UserError, did_you_mean
from lit_core.lightning.one_value import OneValue


class ClassifierScores(OneValue):
    """Loss, accuracy and recall of single classes as sums over samples, so uneven batches and devices add up.

    Args:
        classes: Names of the classes, in the order of their indices.
        hard_classes: Names of the classes whose recall is computed.
        dtype: Number format of the sum of the losses; devices without float64 take float32.
        value: Name of the only score to compute, as a scalar that can be logged; None computes all, as a dict.

    Raises:
        UserError: If a hard class is not among the classes, or there is no score of this name.
    """

    is_differentiable = False
    full_state_update = False

    nll: Tensor
    correct: Tensor
    samples: Tensor

    def __init__(
        self,
        classes: Sequence[str],
        hard_classes: Sequence[str] = (),
        dtype: torch.dtype = torch.float64,
        value: str | None = None,
    ) -> None:
        of_hard = ["hard_accuracy", *(f"recall/{name}" for name in hard_classes)] if hard_classes else []
        super().__init__(value, ["loss", "accuracy", *of_hard])
        self.hard = class_numbers(classes, hard_classes)
        self.add_state("nll", torch.zeros((), dtype=dtype), dist_reduce_fx="sum")
        self.add_state("correct", torch.zeros(len(classes), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("samples", torch.zeros(len(classes), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, nll: Tensor, predicted: Tensor, y: Tensor) -> None:
        """Add samples; the caller leaves padding out.

        Args:
            nll: Negative log-likelihood of each sample in nats, ``(batch,)``.
            predicted: Index of the predicted class, ``(batch,)``.
            y: Index of the true class, ``(batch,)``.
        """
        classes = len(self.samples)
        self.nll += nll.detach().to(self.nll.dtype).sum()
        self.samples += torch.bincount(y, minlength=classes)
        self.correct += torch.bincount(y[predicted == y], minlength=classes)

    def compute(self) -> Any:
        """Return the scores by name, or the chosen one.

        Returns:
            ``loss`` in nats and ``accuracy`` from 0 to 1; with hard classes also ``hard_accuracy`` over their samples
            and ``recall/{class}`` for each. A score is NaN if it has no samples.
        """
        values = {"loss": self.nll / self.samples.sum(), "accuracy": self.correct.sum() / self.samples.sum()}
        if self.hard:
            chosen = list(self.hard.values())
            values["hard_accuracy"] = self.correct[chosen].sum() / self.samples[chosen].sum()
        for name, number in self.hard.items():
            values[f"recall/{name}"] = self.correct[number] / self.samples[number]
        return self.selected({name: value.float() for name, value in values.items()})


def class_numbers(classes: Sequence[str], names: Sequence[str]) -> dict[str, int]:
    """Return the indices of some classes by name.

    Raises:
        UserError: If a name is not among the classes.
    """
    for name in names:
        if name not in classes:
            raise UserError(
                f"`hard_classes` names {name!r}, which is not a class of the data."
                + (did_you_mean(name, classes) or f" They are {', '.join(classes)}.")
            )
    return {name: list(classes).index(name) for name in names}
