"""Attack that replaces American spellings by British ones."""

from __future__ import annotations

from functools import cache

import numpy as np

from lit_detect.attacks.raid import SpanAttack, like_case
from lit_detect.attacks.word_lists import lines_of
from lit_detect.language.synonyms import WORD


class AlternativeSpelling(SpanAttack):
    """RAID's alternative-spelling attack: replaces American spellings by British ones, by a shipped list of words.

    Args:
        fraction: Share of the text's words with a British spelling that are replaced, from 0 to 1.
    """

    def __init__(self, fraction: float = 1.0) -> None:
        super().__init__(fraction)

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Return the spans of the words that have a British spelling."""
        known = british()
        return [word.span() for word in WORD.finditer(text) if word[0].lower() in known]

    def change(self, before: str, rng: np.random.Generator) -> str:
        """Return the British spelling, in the letter case of the word."""
        return like_case(british()[before.lower()], before)


@cache
def british() -> dict[str, str]:
    """Return the shipped spellings: British words by American words."""
    spellings = {}
    for american, other, *endings in lines_of("spellings.txt"):
        for ending in endings:
            ending = ending.removeprefix("-")
            spellings[american + ending] = (other + ending).replace("~", " ")
    return spellings
