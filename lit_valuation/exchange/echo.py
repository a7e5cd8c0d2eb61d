"""Detection of samples that are copies of others, unchanged or slightly changed: of hard cases, or of other answers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lit_valuation.encoders import Encoder, embed
from lit_valuation.exchange.ledger import fingerprints
from lit_valuation.samples import Samples

_BLOCK = 1024


class CopyFinder:
    """Finds samples that lie much nearer to others than different samples naturally do.

    The natural distance is the median distance of a hard case from the nearest sample of the trainer's own training
    set, which holds no hard case. Values are compared, and with an encoder features too: these change little under
    shifts, flips and changes of colour that change every pixel.

    Args:
        hard_cases: The queries and the held-out hard cases.
        own: The trainer's training set.
        fraction: Fraction of the natural distance within which a sample counts as a copy, from 0 to below 1; 0 finds
            exact copies only.
        encoder: Encoder whose features are compared too; None compares values only.
    """

    def __init__(self, hard_cases: Samples, own: Samples, fraction: float, encoder: Encoder | None = None) -> None:
        self._spaces: list[tuple[Callable[[Samples], Tensor], Tensor]] = []
        spaces: list[Callable[[Samples], Tensor]] = [lambda samples: _values(samples, own)]
        if encoder is not None:
            spaces.append(lambda samples: embed(encoder, samples.x))
        for rows in spaces if fraction else []:
            natural_distance = _nearest_distance(rows(hard_cases), rows(own)).median()
            self._spaces.append((rows, fraction * natural_distance))

    def exact(self, samples: Samples, others: Samples) -> Tensor:
        """Return which samples are exact copies of others, whatever their label; bool of shape ``(n,)``."""
        known = set(content_fingerprints(others))
        return torch.tensor([content in known for content in content_fingerprints(samples)], dtype=torch.bool)

    def all(self, samples: Samples, others: Samples) -> Tensor:
        """Return which samples are exact or near copies of others, whatever their label; bool of shape ``(n,)``."""
        is_copy = self.exact(samples, others)
        for rows, distance in self._spaces:
            is_copy |= _nearest_distance(rows(samples), rows(others)) < distance
        return is_copy


def content_fingerprints(samples: Samples) -> tuple[str, ...]:
    """Return the SHA-256 of each sample's values, whatever its label and however its values are stored."""
    unlabelled = Samples(samples.inputs(), torch.zeros_like(samples.y), ("any",), samples.keys)
    return fingerprints(unlabelled)


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
