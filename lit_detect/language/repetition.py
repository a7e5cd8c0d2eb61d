"""How much a text repeats itself: lists, tables, refrains and forms do, and a language model expects each repeat."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

_WORD = re.compile(r"\w+")
#: Share up to which every text is judged; docs/results/default_detector.md has the largest of each domain.
_LEAST = 0.3


def repeated_share(text: str) -> float:
    """Return which share of a text's triples of words stand in it before, 0 to below 1.

    Example:
        >>> repeated_share("To be or not to be, that is the question."), repeated_share("To be or not. " * 10)
        (0.0, 0.8947368421052632)
    """
    words = _WORD.findall(text.lower())
    triples = list(zip(words, words[1:], words[2:], strict=False))
    return 1 - len({*triples}) / len(triples) if triples else 0.0


def most_repeated(shares: Iterable[float]) -> float:
    """Return the share of repeated triples above which a text is of another kind than human texts.

    At most one in 100 of them has more, and it is 0.3 or more.

    Args:
        shares: The share of each human text.
    """
    rising = sorted(shares)
    return max(_LEAST, rising[math.ceil(0.99 * len(rising)) - 1] if rising else 0.0)
