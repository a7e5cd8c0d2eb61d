"""Other numbers."""

from __future__ import annotations

import re

import numpy as np

from lit_detect.attacks.raid import PlaceAttack

_NUMBER = re.compile(r"\d+\.?\d*")


class Number(PlaceAttack):
    """RAID's number attack: numbers get random digits, as many as before.

    Args:
        fraction: Share of the numbers that change, from 0 to 1.
    """

    def __init__(self, fraction: float = 0.5) -> None:
        super().__init__(fraction)

    def places(self, text: str) -> list[tuple[int, int]]:
        """Return the numbers."""
        return [number.span() for number in _NUMBER.finditer(text)]

    def change(self, before: str, rng: np.random.Generator) -> str:
        """Return random digits, and the decimal point where it is."""
        return "".join(sign if sign == "." else str(rng.integers(10)) for sign in before)
