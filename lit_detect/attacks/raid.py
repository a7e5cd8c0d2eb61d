"""Base class of the attacks of RAID, and letter case of replacements (Dugan et al. 2024, arXiv 2405.07940).

RAID draws from one generator for all texts, with the seed 42. Here each text has a generator of its own, so the result
for a text does not depend on the other texts.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np

from lit_detect.attacks.base import Attack, Attacked, attacked, checked_fraction
from lit_detect.records import Edit


class SpanAttack(Attack):
    """Base class of attacks that replace a random share of the spans of a text that qualify, drawn without replacement.

    Args:
        fraction: Share of the qualifying spans that are replaced, from 0 to 1; their number is rounded down.

    Raises:
        UserError: If the fraction is out of range.
    """

    def __init__(self, fraction: float) -> None:
        self.fraction = checked_fraction("fraction", fraction)

    def __call__(self, text: str, seed: int) -> Attacked:
        """Attack a text; see the base class."""
        rng = np.random.default_rng(seed)
        spans = self.spans(text)
        drawn = np.sort(rng.choice(len(spans), int(len(spans) * self.fraction), replace=False))
        replaced = [(spans[i][0], spans[i][1]) for i in drawn.tolist()]
        edits = [Edit(start, end, text[start:end], self.change(text[start:end], rng)) for start, end in replaced]
        return attacked(text, edits, fraction=self.fraction, places=len(spans))

    @abstractmethod
    def spans(self, text: str) -> Sequence[tuple[int, int]]:
        """Return start and end of the spans that qualify, sorted and without overlap; an insertion has start = end."""

    @abstractmethod
    def change(self, before: str, rng: np.random.Generator) -> str:
        """Return the text that replaces the text of a span."""


def like_case(word: str, model: str) -> str:
    """Return ``word`` in the letter case of ``model``: all capitals, a first capital, or unchanged.

    Example:
        >>> like_case("colour", "Color"), like_case("colour", "COLOR"), like_case("colour", "color")
        ('Colour', 'COLOUR', 'colour')
    """
    if len(model) > 1 and model.isupper():
        return word.upper()
    return word[:1].upper() + word[1:] if model[:1].isupper() else word
