"""Answers that give the trainer's own hard cases back, as they are or slightly changed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lit_valuation.encoders import Encoder, embed
from lit_valuation.exchange.ledger import fingerprints
from lit_valuation.samples import Samples

_BLOCK = 1024


def exact_echoes(answer: Samples, hard: Samples) -> Tensor:
    """Tell which samples are hard cases to the last bit, whatever their label; bool of shape ``(n,)``."""
    known = set(_contents(hard))
    return torch.tensor([content in known for content in _contents(answer)], dtype=torch.bool)


def near_echoes(
    answer: Samples, hard: Samples, own: Samples, fraction: float, encoder: Encoder | None = None
) -> Tensor:
    """Tell which samples lie much nearer to a hard case than different samples do; bool of shape ``(n,)``.

    What is near is read off the trainer's own training set, which holds no hard case: the median distance of a hard
    case from the nearest sample there, times ``fraction``. Values are compared, and features too where there is an
    encoder: it sees through shifts, flips and changes of colour that move every pixel.

    Args:
        answer: What an owner sent.
        hard: The queries and the held-out hard cases.
        own: The trainer's training set.
        fraction: Part of the natural distance within which a sample counts as a copy, from 0 to below 1.
        encoder: Encoder whose features are compared as well; None compares values only.
    """
    found = _near([_values(part, own) for part in (answer, hard, own)], fraction)
    if encoder is not None:
        found |= _near([embed(encoder, part.x) for part in (answer, hard, own)], fraction)
    return found


def _near(rows: Sequence[Tensor], fraction: float) -> Tensor:
    answer, hard, own = rows
    natural = _nearest(hard, own).median()
    return _nearest(answer, hard) < fraction * natural


def _nearest(rows: Tensor, others: Tensor) -> Tensor:
    """Return each row's distance from the nearest of the others, ``(n,)``."""
    exactly = "donot_use_mm_for_euclid_dist"  # products lose what tells near copies apart
    return torch.cat([torch.cdist(block, others, compute_mode=exactly).amin(1) for block in rows.split(_BLOCK)])


def _values(samples: Samples, own: Samples) -> Tensor:
    """Return images centred and of length 1, against changes of brightness and contrast; columns scaled."""
    rows = samples.inputs().flatten(1)
    if samples.x.ndim == 4:
        rows = rows - rows.mean(1, keepdim=True)
        return torch.nn.functional.normalize(rows, dim=1)
    scale = own.inputs().flatten(1).std(0)
    return rows / torch.where(scale > 0, scale, torch.ones_like(scale))


def _contents(samples: Samples) -> tuple[str, ...]:
    one = Samples(samples.inputs(), torch.zeros_like(samples.y), ("any",), samples.keys)
    return fingerprints(one)
