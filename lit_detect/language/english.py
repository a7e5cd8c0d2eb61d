"""Whether a text is in English, told by how many of its words are among the commonest of that language."""

from __future__ import annotations

import re
from collections.abc import Sequence

_WORD = re.compile(r"[^\W\d_]+")
_COMMON = frozenset(
    "the of and to a in that is was it for on with as at by be this have from or not are but had his her he she they "
    "we you i my me an were which there their will would can if so what has been".split()
)
#: Share from which a text is taken for English; docs/results/default_detector.md counts the texts of each domain.
_LEAST = 0.2
#: Share of such texts from which others are of another kind.
_MOST = 0.95


def is_english(text: str) -> bool:
    """Return whether at least a fifth of the words are among the 50 commonest English ones.

    Example:
        >>> is_english("It was the best of times, it was the worst of times."), is_english("Es war einmal ein König.")
        (True, False)
    """
    words = _WORD.findall(text.lower())
    return bool(words) and sum(word in _COMMON for word in words) >= _LEAST * len(words)


def mostly_english(are_english: Sequence[bool]) -> bool:
    """Return whether at least 95 % of the texts of a calibration are in English, so that others are of another kind.

    Args:
        are_english: Whether each text is, as `is_english` tells.
    """
    return sum(are_english) >= _MOST * len(are_english)
