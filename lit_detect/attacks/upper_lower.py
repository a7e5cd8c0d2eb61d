"""Capitals where none are due, and the other way round."""

from __future__ import annotations

import numpy as np

from lit_detect.attacks.raid import PlaceAttack
from lit_detect.language.synonyms import WORD


class UpperLower(PlaceAttack):
    """RAID's upper-lower attack: the first letter of words changes its case.

    Args:
        fraction: Share of the words that change, from 0 to 1.
    """

    def __init__(self, fraction: float = 0.05) -> None:
        super().__init__(fraction)

    def places(self, text: str) -> list[tuple[int, int]]:
        """Return the first letters of the words."""
        return [(word.start(), word.start() + 1) for word in WORD.finditer(text)]

    def change(self, before: str, rng: np.random.Generator) -> str:
        """Return the letter in the other case."""
        return before.lower() if before.isupper() else before.upper()
