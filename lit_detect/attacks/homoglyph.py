"""Attack that replaces Latin letters by similar letters of other scripts."""

from __future__ import annotations

import re

import numpy as np

from lit_detect.attacks.raid import SpanAttack

#: Letters of Cyrillic and Greek that look like a Latin one.
GLYPHS = {
    "A": "\u0410\u0391",
    "B": "\u0412\u0392",
    "C": "\u0421",
    "E": "\u0415\u0395",
    "H": "\u041d\u0397",
    "I": "\u0406\u0399",
    "K": "\u041a\u039a",
    "M": "\u041c\u039c",
    "N": "\u039d",
    "O": "\u041e\u039f",
    "P": "\u0420\u03a1",
    "T": "\u0422\u03a4",
    "X": "\u0425\u03a7",
    "Z": "\u0396",
    "a": "\u0430",
    "c": "\u0441",
    "e": "\u0435",
    "i": "\u0456",
    "o": "\u043e",
    "p": "\u0440",
    "x": "\u0445",
    "y": "\u0443",
}
_LETTERS = re.compile(f"[{''.join(GLYPHS)}]")


class Homoglyph(SpanAttack):
    """RAID's homoglyph attack: replaces Latin letters by Cyrillic or Greek letters that look the same.

    Args:
        fraction: Share of the letters with a homoglyph that are replaced, from 0 to 1.
    """

    def __init__(self, fraction: float = 1.0) -> None:
        super().__init__(fraction)

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Return the spans of the letters that have a homoglyph."""
        return [letter.span() for letter in _LETTERS.finditer(text)]

    def change(self, before: str, rng: np.random.Generator) -> str:
        """Return a homoglyph of the letter."""
        choices = GLYPHS[before]
        return choices[int(rng.integers(len(choices)))]
