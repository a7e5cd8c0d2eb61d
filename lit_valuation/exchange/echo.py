"""Detection of answers that give the trainer's own hard cases back, unchanged or slightly changed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lit_valuation.encoders import Encoder, embed
from lit_valuation.exchange.ledger import fingerprints
from lit_valuation.samples import Samples

_BLOCK = 1024


def exact_echoes(answer: Samples, hard_cases: Samples) -> Tensor:
    """Return which samples are exact copies of hard cases, whatever their label; bool of shape ``(n,)``."""
    known = set(_contents(hard_cases))
    return torch.tensor([content in known for content in _contents(answer)], dtype=torch.bool)


def near_echoes(
    answer: Samples, hard_cases: Samples, own: Samples, fraction: float, encoder: Encoder | None = None
) -> Tensor:
    """Return which samples lie much nearer to a hard case than different samples naturally do.

    The natural distance is the median distance of a hard case from the nearest sample of the trainer's own training
    set, which holds no hard case. Values are compared, and with an encoder features too: these change little under
    shifts, flips and changes of colour that change every pixel.

    Args:
        answer: Samples that an owner sent.
        hard_cases: The queries and the held-out hard cases.
        own: The trainer's training set.
        fraction: Fraction of the natural distance within which a sample counts as a copy, from 0 to below 1.
        encoder: Encoder whose features are compared too; None compares values only.

    Returns:
        Whether each sample of the answer is a copy, bool of shape ``(n,)``.
    """
    is_near = _is_near([_values(part, own) for part in (answer, hard_cases, own)], fraction)
    if encoder is not None:
        is_near |= _is_near([embed(encoder, part.x) for part in (answer, hard_cases, own)], fraction)
    return is_near


def _is_near(rows: Sequence[Tensor], fraction: float) -> Tensor:
    answer, hard_cases, own = rows
    natural_distance = _nearest_distance(hard_cases, own).median()
    return _nearest_distance(answer, hard_cases) < fraction * natural_distance


def _nearest_distance(rows: Tensor, others: Tensor) -> Tensor:
    """Return each row's distance from the nearest of the others, ``(n,)``."""
    exactly = "donot_use_mm_for_euclid_dist"  # matrix products round away the difference of near copies
    return torch.cat([torch.cdist(block, others, compute_mode=exactly).amin(1) for block in rows.split(_BLOCK)])


def _values(samples: Samples, own: Samples) -> Tensor:
    """Return rows to compare: images without brightness and contrast (mean 0, length 1), columns in own deviations."""
    rows = samples.inputs().flatten(1)
    if samples.x.ndim == 4:
        rows = rows - rows.mean(1, keepdim=True)
        return torch.nn.functional.normalize(rows, dim=1)
    scale = own.inputs().flatten(1).std(0)
    return rows / torch.where(scale > 0, scale, torch.ones_like(scale))


def _contents(samples: Samples) -> tuple[str, ...]:
    unlabelled = Samples(samples.inputs(), torch.zeros_like(samples.y), ("any",), samples.keys)
    return fingerprints(unlabelled)
