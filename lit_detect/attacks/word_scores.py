"""Interface for the probabilities of words in a text under causal or masked language models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from lit_detect.attacks.editable_text import EditableText

#: Words of context on each side of a replaced one.
SIDE = 7


class WordScorer(ABC):
    """Base class of scorers, which return the probabilities of words of one text.

    A scorer may cache results. Code that replaces a word must call `replaced`, which removes the cached results that
    depend on it.

    Attributes:
        document: The words of the text.
    """

    document: EditableText

    @abstractmethod
    def all_words(self) -> list[float | None]:
        """Return the log-probability of each word of the text, in nats; None for words that are not read."""

    @abstractmethod
    def choices(self, index: int, choices: Sequence[str], following: Sequence[int]) -> np.ndarray:
        """Return the probability of each candidate for a word, given 7 words on each side.

        Args:
            index: Index of the word that a candidate would replace.
            choices: The candidates.
            following: Word indices of likely later calls; a scorer may compute some of them in the same batch.

        Returns:
            Probabilities from 0 to 1, float64 of shape ``(len(choices),)``.
        """

    @abstractmethod
    def replaced(self, index: int) -> None:
        """Remove cached results that depend on a word, after it has been replaced.

        Args:
            index: Index of the replaced word.
        """


def pieces(document: EditableText, first: int, last: int) -> list[str]:
    """Return the words ``first`` to ``last`` - 1 and the gaps before them, alternating: gap, word, gap, word.

    A space before a word belongs to the word. Byte-level tokenizers divide texts at these points in any case, so the
    tokens of the pieces are the tokens of the text.
    """
    parts = []
    for i in range(first, last):
        gap, space = divided_gap(document, i) if i > first or first == 0 else ("", "")
        parts += [gap, space + document.words[i]]
    return parts


def divided_gap(document: EditableText, index: int) -> tuple[str, str]:
    """Return the gap before a word without its last space, and that space, or the empty string if there is none."""
    gap = document.gaps[index]
    space = " " if gap.endswith(" ") else ""
    return gap[: len(gap) - len(space)], space
