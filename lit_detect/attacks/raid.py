"""What RAID's attacks on characters and format share (Dugan et al. 2024, arXiv 2405.07940): some of the places change.

RAID draws from one generator for all texts, seeded with 42; here each text draws from its own, so that what becomes of
it does not depend on the others.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np

from lit_core.errors import UserError
from lit_detect.attacks.base import Attack, Attacked, apply_edits
from lit_detect.records import Edit


class PlaceAttack(Attack):
    """Changes a share of the places of a text that it can change, drawn without replacement.

    Args:
        fraction: Share of the places that change, from 0 to 1, rounded down to whole places.

    Raises:
        UserError: If the fraction is out of range.
    """

    def __init__(self, fraction: float) -> None:
        self.fraction = checked_fraction(fraction)
        self.name = type(self).__name__

    def __call__(self, text: str, seed: int) -> Attacked:
        """Attack a text; see the base class."""
        rng = np.random.default_rng(seed)
        places = self.places(text)
        chosen = np.sort(rng.choice(len(places), int(len(places) * self.fraction), replace=False))
        found = [(places[i][0], places[i][1]) for i in chosen.tolist()]
        edits = [Edit(start, end, text[start:end], self.change(text[start:end], rng)) for start, end in found]
        return attacked(text, edits, fraction=self.fraction, places=len(places))

    @abstractmethod
    def places(self, text: str) -> Sequence[tuple[int, int]]:
        """Return start and end of each place by place, without overlap; equal for an insertion."""

    @abstractmethod
    def change(self, before: str, rng: np.random.Generator) -> str:
        """Return what a place becomes."""


def checked_fraction(fraction: float) -> float:
    """Return a fraction, or refuse it.

    Raises:
        UserError: If it is below 0 or above 1.
    """
    if not 0 <= fraction <= 1:
        raise UserError(f"fraction is {fraction}, but must be from 0 to 1; set it so.")
    return fraction


def attacked(text: str, edits: Sequence[Edit], queries: int = 0, **meta: object) -> Attacked:
    """Return what edits make of a text."""
    return Attacked(apply_edits(text, edits), tuple(edits), queries, meta)


def like_case(word: str, model: str) -> str:
    """Return a word in the case of another: capitals, a first capital, or as it is.

    Example:
        >>> like_case("colour", "Color"), like_case("colour", "COLOR"), like_case("colour", "color")
        ('Colour', 'COLOUR', 'colour')
    """
    if len(model) > 1 and model.isupper():
        return word.upper()
    return word[:1].upper() + word[1:] if model[:1].isupper() else word
