"""Scores of an answer that need no training: how well it matches the queries to the trainer's own model and encoder."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from lit_valuation.encoders import Encoder, embed
from lit_valuation.functional.gradients import LastLayerGradients
from lit_valuation.functional.median import geometric_median, psi
from lit_valuation.functional.pursuit import matching_pursuit
from lit_valuation.last_layer import gather_gradients
from lit_valuation.samples import Samples


def relative_residual(task: LightningModule, answer: Samples, queries: Samples) -> float:
    """Return what is left of the queries' gradient when an answer's gradients are matched to it, from 0 to about 1.

    Matched class by class with all samples of the answer and weights of 0 or more, so nobody's claim is trusted; a
    class without samples is left whole.

    Args:
        task: The trainer's model, which makes mistakes on the queries.
        answer: What an owner shared, numbered as the model numbers classes.
        queries: The queries, numbered alike.
    """
    smoothing = float(getattr(task, "label_smoothing", 0.0))
    theirs, asked = (
        gather_gradients(task, _batches(part), label_smoothing=smoothing).gradients for part in (answer, queries)
    )
    left = whole = 0.0
    for c in queries.y.unique():
        target = asked.take((queries.y == c).nonzero().squeeze(1)).sum()
        length = float(target.norm())
        mine = (answer.y == c).nonzero().squeeze(1)
        left += (length * _residual(theirs.take(mine), target)) ** 2
        whole += length**2
    return math.sqrt(left / whole) if whole else 0.0


def mean_psi(encoder: Encoder, answer: Samples, queries: Samples) -> float:
    """Return the mean distance of an answer's features from the geometric median of its class's queries."""
    theirs, asked = embed(encoder, answer.x), embed(encoder, queries.x)
    distances = [
        psi(theirs[answer.y == c], geometric_median(asked[queries.y == c]))
        for c in answer.y.unique()
        if (queries.y == c).any()
    ]
    return float(torch.cat(distances).mean()) if distances else math.nan


def _residual(gradients: LastLayerGradients, target: Tensor) -> float:
    return matching_pursuit(gradients, target, len(gradients)).residual if len(gradients) else 1.0


def _batches(samples: Samples) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, len(samples), 256):
        part = samples.take(range(start, min(start + 256, len(samples))))
        yield part.inputs(), part.y
