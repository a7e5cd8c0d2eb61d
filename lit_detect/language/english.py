"""Whether a text is in English, told by how many of its words are among the commonest of that language."""

from __future__ import annotations

import re

_WORD = re.compile(r"[^\W\d_]+")
_COMMON = frozenset(
    "the of and to a in that is was it for on with as at by be this have from or not are but had his her he she they "
    "we you i my me an were which there their will would can if so what has been".split()
)
#: Share from which a text is taken for English; docs/results/default_detector.md counts the texts of each domain.
_LEAST = 0.2


def is_english(text: str) -> bool:
    """Return whether at least a fifth of the words are among the 50 commonest English ones.

    Example:
        >>> is_english("It was the best of times, it was the worst of times."), is_english("Es war einmal ein König.")
        (True, False)
    """
    words = _WORD.findall(text.lower())
    return bool(words) and sum(word in _COMMON for word in words) >= _LEAST * len(words)
