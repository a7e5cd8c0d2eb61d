"""Attack that changes the digits of numbers."""

from __future__ import annotations

import re

import numpy as np

from lit_detect.attacks.raid import SpanAttack

_NUMBER = re.compile(r"\d+\.?\d*")


class Number(SpanAttack):
    """RAID's number attack: replaces all digits of numbers by random digits.

    Args:
        fraction: Share of the numbers that are replaced, from 0 to 1.
    """

    def __init__(self, fraction: float = 0.5) -> None:
        super().__init__(fraction)

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Return the spans of the numbers."""
        return [number.span() for number in _NUMBER.finditer(text)]

    def change(self, before: str, rng: np.random.Generator) -> str:
        """Return as many random digits, with the decimal point at the same position."""
        return "".join(sign if sign == "." else str(rng.integers(10)) for sign in before)
