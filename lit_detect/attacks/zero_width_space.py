"""Attack that inserts invisible characters."""

from __future__ import annotations

import numpy as np

from lit_detect.attacks.raid import SpanAttack


class ZeroWidthSpace(SpanAttack):
    """RAID's zero-width-space attack: inserts U+200B after characters.

    Args:
        fraction: Share of the characters after which one is inserted, from 0 to 1.
    """

    def __init__(self, fraction: float = 1.0) -> None:
        super().__init__(fraction)

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Return the offset after each character, as empty spans."""
        return [(end, end) for end in range(1, len(text) + 1)]

    def change(self, before: str, rng: np.random.Generator) -> str:
        """Return the zero-width space."""
        return "\u200b"
