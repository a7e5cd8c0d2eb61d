"""What all sources of synonyms share."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import Any

#: Letters, with single hyphens or apostrophes inside.
WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


class Synonyms(ABC):
    """Gives words that may stand for a word; words are in small letters.

    Attributes:
        name: What it is built from, by its true name.
        thresholds: What decides which words are near enough, as plain values.
    """

    name: str
    thresholds: dict[str, Any]

    @abstractmethod
    def candidates(self, word: str) -> list[tuple[str, float]]:
        """Return words that may stand for a word with a similarity in (0, 1], the most similar first.

        Antonyms are left out as far as they are known, and so is the word itself.
        """

    @abstractmethod
    def __contains__(self, word: object) -> bool: ...

    def parts_of_speech(self, word: str) -> frozenset[str]:
        """Return the universal tags that a word may have, among NOUN, VERB, ADJ and ADV; empty where none is known."""
        return frozenset()
