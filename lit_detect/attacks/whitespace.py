"""Attack that inserts spaces."""

from __future__ import annotations

import numpy as np

from lit_detect.attacks.base import Attack, Attacked, attacked, checked_fraction
from lit_detect.records import Edit


class Whitespace(Attack):
    """RAID's whitespace attack: inserts spaces between words.

    The text is divided at its spaces, and spaces are inserted after parts, which may be the last one. The parts are
    drawn with replacement, so several spaces may be inserted at the same offset.

    Args:
        fraction: Spaces to insert per part of the text, from 0 to 1.

    Raises:
        UserError: If the fraction is out of range.
    """

    def __init__(self, fraction: float = 0.2) -> None:
        self.fraction = checked_fraction("fraction", fraction)

    def __call__(self, text: str, seed: int) -> Attacked:
        """Attack a text; see the base class."""
        ends = [offset for offset, character in enumerate(text) if character == " "] + [len(text)]
        count = int(len(ends) * self.fraction) if text else 0
        drawn = np.random.default_rng(seed).integers(len(ends), size=count)
        parts, times = np.unique(drawn, return_counts=True)
        edits = [Edit(ends[i], ends[i], "", " " * k) for i, k in zip(parts.tolist(), times.tolist(), strict=True)]
        return attacked(text, edits, fraction=self.fraction, places=len(ends), spaces=count)
