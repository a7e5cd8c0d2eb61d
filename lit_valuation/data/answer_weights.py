"""Weights of owners' answers that a trainer adds to its training set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import torch
from torch import Tensor

from lit_core.errors import UserError
from lit_core.files.formats import read_stamped
from lit_valuation.data.labelled_sets import LabelledSet
from lit_valuation.functional.mass import Weights, sample_weights

#: File and format in which an answer tells its weights.
_MANIFEST, _FORMAT = "manifest.json", "litshift-exchange"
_REMEDY = "ask its owner for the answer again, or set weights to equal"


class _Answer(TypedDict):
    """What is read of the manifest."""

    keys: list[str]
    weights: list[float]


def training_weights(
    own: LabelledSet, extra: Sequence[LabelledSet], rows: Sequence[Tensor], mass: float | None, weights: Weights
) -> Tensor | None:
    """Return the weight in the loss of each own sample and then of each added one; None for 1 each.

    Args:
        own: The trainer's own training set.
        extra: The sets that are added.
        rows: Indices of the samples of each of them that are trained on, int64.
        mass: Share of the loss that the added samples get together; None is their share by number.
        weights: Whether the samples of an added set count equally, or by the weights of its manifest, whose mean is
            taken for 1.

    Raises:
        UserError: If there are no added sets, or one has no weights or only those of 0.
    """
    if mass is None and weights == "equal":
        return None
    if not extra:
        name, value = ("weights", weights) if mass is None else ("mass", mass)
        raise UserError(f"`{name}` is {value}, but `extra` names no answers to weigh; name some, or leave it out.")
    within = [
        _weights_of(each, kept) if weights == "manifest" else torch.ones(len(kept))
        for each, kept in zip(extra, rows, strict=True)
    ]
    return sample_weights(len(own), mass, torch.cat([one.double() for one in within]))


def _weights_of(answer: LabelledSet, rows: Tensor) -> Tensor:
    """Return the weights in an answer's manifest of the samples that are trained on, with a mean of 1."""
    path: Path = answer.folder / _MANIFEST
    if not path.is_file():
        raise UserError(
            f"`weights` is manifest, but {answer.folder} has no {_MANIFEST}, so it is not an answer of lit-valuation "
            "select; set weights to equal."
        )
    content: _Answer = read_stamped(path, _FORMAT, _Answer, _REMEDY)
    weights = torch.tensor(content["weights"], dtype=torch.float64)
    rules = {
        "names other samples than it holds": tuple(content["keys"]) == answer.load().keys,
        "does not have one weight per sample": len(weights) == len(answer),
        "has a negative weight": bool((weights >= 0).all()),
    }
    for fault, holds in rules.items():
        if not holds:
            raise UserError(f"{path} {fault}; {_REMEDY}.")
    counted = weights[rows]
    if not bool((counted > 0).any()):
        raise UserError(f"{path} gives each of its samples a weight of 0; {_REMEDY}.")
    relative = counted / counted.max()  # the sum of large weights could overflow
    return relative / relative.mean()
