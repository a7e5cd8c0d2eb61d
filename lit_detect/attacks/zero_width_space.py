"""Characters that nobody sees."""

from __future__ import annotations

import numpy as np

from lit_detect.attacks.raid import PlaceAttack


class ZeroWidthSpace(PlaceAttack):
    """RAID's zero-width-space attack: U+200B after each character.

    Args:
        fraction: Share of the characters that are followed by one, from 0 to 1.
    """

    def __init__(self, fraction: float = 1.0) -> None:
        super().__init__(fraction)

    def places(self, text: str) -> list[tuple[int, int]]:
        """Return the places after each character."""
        return [(end, end) for end in range(1, len(text) + 1)]

    def change(self, before: str, rng: np.random.Generator) -> str:
        """Return the zero-width space."""
        return "\u200b"
