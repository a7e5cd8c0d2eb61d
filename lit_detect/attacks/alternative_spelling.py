"""British spellings for American ones."""

from __future__ import annotations

from functools import cache

import numpy as np

from lit_detect.attacks.raid import PlaceAttack, like_case
from lit_detect.attacks.word_lists import lines_of
from lit_detect.language.synonyms import WORD


class AlternativeSpelling(PlaceAttack):
    """RAID's alternative-spelling attack: American spellings become British ones, whole words of a shipped list.

    Args:
        fraction: Share of the words of the list that change, from 0 to 1.
    """

    def __init__(self, fraction: float = 1.0) -> None:
        super().__init__(fraction)

    def places(self, text: str) -> list[tuple[int, int]]:
        """Return the words with another spelling."""
        known = british()
        return [word.span() for word in WORD.finditer(text) if word[0].lower() in known]

    def change(self, before: str, rng: np.random.Generator) -> str:
        """Return the British spelling in the case of the word."""
        return like_case(british()[before.lower()], before)


@cache
def british() -> dict[str, str]:
    """Return the British spelling of each American word of the list."""
    found = {}
    for american, other, *endings in lines_of("spellings.txt"):
        for ending in endings:
            ending = ending.removeprefix("-")
            found[american + ending] = (other + ending).replace("~", " ")
    return found
