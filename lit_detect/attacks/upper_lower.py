"""Attack that swaps the case of the first letter of words."""

from __future__ import annotations

import numpy as np

from lit_detect.attacks.raid import SpanAttack
from lit_detect.language.synonyms import WORD


class UpperLower(SpanAttack):
    """RAID's upper-lower attack: swaps the case of the first letter of words.

    Args:
        fraction: Share of the words that are changed, from 0 to 1.
    """

    def __init__(self, fraction: float = 0.05) -> None:
        super().__init__(fraction)

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Return the spans of the words' first letters."""
        return [(word.start(), word.start() + 1) for word in WORD.finditer(text)]

    def change(self, before: str, rng: np.random.Generator) -> str:
        """Return the letter in the other case."""
        return before.lower() if before.isupper() else before.upper()
