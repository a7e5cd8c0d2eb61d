"""How likely words are in a document, to language models that read it from the left or fill masks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from lit_detect.attacks.document import Document

#: Words on each side of a replaced one that a language model sees.
SIDE = 7


class WordScorer(ABC):
    """Gives words probabilities.

    A scorer belongs to one document: it keeps what it computed for words whose surroundings are as they were.

    Attributes:
        document: The words; who replaces one says so by `replaced`.
    """

    document: Document

    @abstractmethod
    def all_words(self) -> list[float | None]:
        """Return the log-probability of each word of the document in it; None of those that are not read."""

    @abstractmethod
    def choices(self, place: int, choices: Sequence[str], following: Sequence[int]) -> np.ndarray:
        """Return the probability of each of some words at a place, in the window of 7 words on each side.

        Args:
            place: Number of the word that they may replace.
            choices: The words.
            following: Places that will be asked for next, likely; what is computed together is cheaper.

        Returns:
            Float64 of shape ``(len(choices),)``.
        """

    @abstractmethod
    def replaced(self, place: int) -> None:
        """Take note that a word of the document is another now."""


def pieces(document: Document, first: int, last: int) -> list[str]:
    """Return the text from a word to another, exclusive, as gaps and words by turns; a space before a word is its own.

    Byte-level tokenizers cut texts there in any case, so that the tokens of the pieces are those of the text.
    """
    found = []
    for i in range(first, last):
        gap, space = divided_gap(document, i) if i > first or first == 0 else ("", "")
        found += [gap, space + document.words[i]]
    return found


def divided_gap(document: Document, place: int) -> tuple[str, str]:
    """Return what is before a word, and the space that belongs to the word, if there is one."""
    gap = document.gaps[place]
    space = " " if gap.endswith(" ") else ""
    return gap[: len(gap) - len(space)], space
