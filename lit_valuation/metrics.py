"""Scores of a model on a named set, by kind of target, exact over batches and devices."""

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
        others: Names of further scores that a subclass computes.

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
        others: Sequence[str] = (),
    ) -> None:
        of_hard = ["hard_accuracy", *(f"recall/{name}" for name in hard_classes)] if hard_classes else []
        super().__init__(value, ["loss", "accuracy", *others, *of_hard])
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
        return self.selected({name: value.float() for name, value in self.values().items()})

    def values(self) -> dict[str, Tensor]:
        """Return all scores by name."""
        values = {"loss": self.nll / self.samples.sum(), "accuracy": self.correct.sum() / self.samples.sum()}
        if self.hard:
            chosen = list(self.hard.values())
            values["hard_accuracy"] = self.correct[chosen].sum() / self.samples[chosen].sum()
        for name, number in self.hard.items():
            values[f"recall/{name}"] = self.correct[number] / self.samples[number]
        return values


class TaggingScores(ClassifierScores):
    """The scores of `ClassifierScores` over tokens, and F1, as sums over tokens, so uneven batches and devices add up.

    Args:
        classes: Names of the tags, in the order of their indices.
        hard_classes: Names of the tags whose recall is computed.
        dtype: Number format of the sum of the losses; devices without float64 take float32.
        value: Name of the only score to compute, as a scalar that can be logged; None computes all, as a dict.

    Raises:
        UserError: If a hard tag is not among the tags, or there is no score of this name.
    """

    predicted: Tensor

    def __init__(
        self,
        classes: Sequence[str],
        hard_classes: Sequence[str] = (),
        dtype: torch.dtype = torch.float64,
        value: str | None = None,
    ) -> None:
        super().__init__(classes, hard_classes, dtype, value, ["f1_macro"])
        self.add_state("predicted", torch.zeros(len(classes), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, nll: Tensor, predicted: Tensor, y: Tensor) -> None:
        """Add tokens; the caller leaves those without a tag out.

        Args:
            nll: Negative log-likelihood of each token's tag in nats, ``(tokens,)``.
            predicted: Index of the predicted tag, ``(tokens,)``.
            y: Index of the true tag, ``(tokens,)``.
        """
        super().update(nll, predicted, y)
        self.predicted += torch.bincount(predicted, minlength=len(self.samples))

    def values(self) -> dict[str, Tensor]:
        """Return the scores of `ClassifierScores`, and ``f1_macro``: the mean over tags present or predicted."""
        either = self.predicted + self.samples
        return super().values() | {"f1_macro": (2 * self.correct / either)[either > 0].mean()}


class MultiLabelScores(OneValue):
    """Loss, share of right labels, exact matches and F1 as sums over samples, so uneven batches and devices add up.

    Args:
        classes: Names of the labels, in the order of their columns.
        dtype: Number format of the sum of the losses; devices without float64 take float32.
        value: Name of the only score to compute, as a scalar that can be logged; None computes all, as a dict.

    Raises:
        UserError: If there is no score of this name.
    """

    is_differentiable = False
    full_state_update = False

    nll: Tensor
    samples: Tensor
    exact: Tensor
    both: Tensor
    predicted: Tensor
    true: Tensor

    def __init__(self, classes: Sequence[str], dtype: torch.dtype = torch.float64, value: str | None = None) -> None:
        super().__init__(value, ["loss", "accuracy", "exact_match", "f1_micro", "f1_macro"])
        self.add_state("nll", torch.zeros((), dtype=dtype), dist_reduce_fx="sum")
        for name in ("samples", "exact"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        for name in ("both", "predicted", "true"):
            self.add_state(name, torch.zeros(len(classes), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, nll: Tensor, predicted: Tensor, y: Tensor) -> None:
        """Add samples; the caller leaves padding out.

        Args:
            nll: Negative log-likelihood of each sample in nats, summed over the labels, ``(batch,)``.
            predicted: Which labels are predicted, bool of shape ``(batch, k)``.
            y: Which labels the samples have, 0 or 1, of the same shape.
        """
        true = y > 0.5
        self.nll += nll.detach().to(self.nll.dtype).sum()
        self.samples += len(y)
        self.exact += (predicted == true).all(1).sum()
        self.both += (predicted & true).sum(0)
        self.predicted += predicted.sum(0)
        self.true += true.sum(0)

    def compute(self) -> Any:
        """Return the scores by name, or the chosen one.

        Returns:
            ``loss`` in nats; from 0 to 1 ``accuracy``, the share of right labels, ``exact_match``, the share of samples
            whose labels are all right, ``f1_micro`` over all labels together, and ``f1_macro``, the mean over the
            labels that a sample has or is predicted to have. A score is NaN if nothing counts for it.
        """
        wrong = self.predicted + self.true - 2 * self.both
        either = self.predicted + self.true
        f1 = (2 * self.both / either)[either > 0]
        return self.selected(
            {
                "loss": (self.nll / self.samples).float(),
                "accuracy": 1 - wrong.sum() / (self.samples * len(wrong)),
                "exact_match": self.exact / self.samples,
                "f1_micro": 2 * self.both.sum() / either.sum(),
                "f1_macro": f1.mean(),
            }
        )


class RegressionScores(OneValue):
    """Loss, and errors by target column, as sums over samples, so uneven batches and devices add up.

    Args:
        classes: Names of the target columns, in their order.
        dtype: Number format of the sums; devices without float64 take float32.
        value: Name of the only score to compute, as a scalar that can be logged; None computes all, as a dict.

    Raises:
        UserError: If there is no score of this name.
    """

    is_differentiable = False
    full_state_update = False

    loss: Tensor
    samples: Tensor
    squares: Tensor
    distances: Tensor
    wanted: Tensor
    wanted_squares: Tensor

    def __init__(self, classes: Sequence[str], dtype: torch.dtype = torch.float64, value: str | None = None) -> None:
        self.classes = tuple(classes)
        by_column = [f"{name}/{column}" for name in ("rmse", "mae", "r2") for column in self.classes]
        super().__init__(value, ["loss", "r2", *by_column])
        self.add_state("loss", torch.zeros((), dtype=dtype), dist_reduce_fx="sum")
        self.add_state("samples", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        for name in ("squares", "distances", "wanted", "wanted_squares"):
            self.add_state(name, torch.zeros(len(self.classes), dtype=dtype), dist_reduce_fx="sum")

    def update(self, losses: Tensor, outputs: Tensor, wanted: Tensor) -> None:
        """Add samples; the caller leaves padding out.

        Args:
            losses: Loss of each sample, ``(batch,)``.
            outputs: Outputs of the model, ``(batch, k)``.
            wanted: What the outputs should be, of the same shape and around 0, so that no precision is lost.
        """
        error, wanted = (outputs - wanted).detach().to(self.squares.dtype), wanted.to(self.squares.dtype)
        self.loss += losses.detach().to(self.loss.dtype).sum()
        self.samples += len(wanted)
        self.squares += error.square().sum(0)
        self.distances += error.abs().sum(0)
        self.wanted += wanted.sum(0)
        self.wanted_squares += wanted.square().sum(0)

    def compute(self) -> Any:
        """Return the scores by name, or the chosen one.

        Returns:
            ``loss``; for each column ``rmse/{column}`` and ``mae/{column}``, in the unit of the outputs, and
            ``r2/{column}``, the share of its variance that is explained; and ``r2``, their mean. A score is NaN if it
            has no samples, and r2 where all values are equal.
        """
        spread = self.wanted_squares - self.wanted.square() / self.samples
        r2 = torch.where(spread > 0, 1 - self.squares / spread, torch.nan)
        columns = {
            "rmse": (self.squares / self.samples).sqrt(),
            "mae": self.distances / self.samples,
            "r2": r2,
        }
        values = {"loss": self.loss / self.samples, "r2": r2.mean()}
        for name, by_column in columns.items():
            values |= {f"{name}/{column}": by_column[i] for i, column in enumerate(self.classes)}
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
