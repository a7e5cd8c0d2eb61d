"""Base class of synonym sources, and the pattern of words."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import Any

#: Letters, with single hyphens or apostrophes inside.
WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


class Synonyms(ABC):
    """Base class of sources of synonyms; all words are in lower case.

    Attributes:
        name: Name of the class or resource.
        thresholds: Settings that decide which words are similar enough, as plain values.
    """

    name: str
    thresholds: dict[str, Any]

    @abstractmethod
    def candidates(self, word: str) -> list[tuple[str, float]]:
        """Return the synonyms of a word, each with a similarity above 0 and at most 1, the most similar first.

        The word itself and its known antonyms are left out.
        """

    @abstractmethod
    def __contains__(self, word: object) -> bool: ...

    def parts_of_speech(self, word: str) -> frozenset[str]:
        """Return the possible universal tags of a word among NOUN, VERB, ADJ and ADV; empty if none is known."""
        return frozenset()
