"""Scores of an answer that need no training: how well its gradients and features match those of the queries."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from lit_valuation.encoders import Encoder, embed
from lit_valuation.functional.gradients import SampleGradients
from lit_valuation.functional.median import geometric_median, psi
from lit_valuation.functional.pursuit import matching_pursuit
from lit_valuation.last_layer import gather_gradients, rows_at_once
from lit_valuation.samples import Samples


def relative_residual(task: LightningModule, answer: Samples, queries: Samples) -> float:
    """Return the relative residual of the queries' gradient after matching the answer's gradients to it.

    The gradients are matched class by class, or all together where targets are not classes, with all samples of the
    answer and weights of 0 or more, so the score does not depend on what the owner claims. A class without samples in
    the answer has a residual of 1.

    Args:
        task: The trainer's model, which misclassifies the queries.
        answer: An owner's answer, with classes numbered as in the model.
        queries: The queries, with classes numbered as in the model.

    Returns:
        √(Σ ‖r_c‖² / Σ ‖b_c‖²) over the queries' classes c, from 0 to about 1; lower is better.
    """
    of_answer, of_queries = (gather_gradients(task, _batches(task, part)).gradients for part in (answer, queries))
    squared_residual = squared_length = 0.0
    for c in queries.strata().unique():
        target = of_queries.take((queries.strata() == c).nonzero().squeeze(1)).sum()
        length = float(target.norm())
        atoms = of_answer.take((answer.strata() == c).nonzero().squeeze(1))
        squared_residual += (length * _residual(atoms, target)) ** 2
        squared_length += length**2
    return math.sqrt(squared_residual / squared_length) if squared_length else 0.0


def mean_psi(encoder: Encoder, answer: Samples, queries: Samples) -> float:
    """Return the mean distance of an answer's features from the geometric median of its class's queries.

    Args:
        encoder: Encoder of the features.
        answer: An owner's answer.
        queries: The queries, with classes numbered as in the answer.

    Returns:
        The mean of ψ, from 0 to 2; NaN if answer and queries have no class in common.
    """
    of_answer, of_queries = embed(encoder, answer.x), embed(encoder, queries.x)
    distances = [
        psi(of_answer[answer.strata() == c], geometric_median(of_queries[queries.strata() == c]))
        for c in answer.strata().unique()
        if (queries.strata() == c).any()
    ]
    return float(torch.cat(distances).mean()) if distances else math.nan


def _residual(gradients: SampleGradients, target: Tensor) -> float:
    return matching_pursuit(gradients, target, len(gradients)).residual if len(gradients) else 1.0


def _batches(task: LightningModule, samples: Samples) -> Iterator[tuple[Tensor, Tensor]]:
    size = rows_at_once(task, samples)
    for start in range(0, len(samples), size):
        part = samples.take(range(start, min(start + size, len(samples))))
        yield part.inputs(), part.y
