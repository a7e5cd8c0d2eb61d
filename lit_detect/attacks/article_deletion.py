"""Attack that deletes articles."""

from __future__ import annotations

import re

import numpy as np

from lit_detect.attacks.raid import SpanAttack

_ARTICLE = re.compile(r" (?:a|an|the)(?= )")


class ArticleDeletion(SpanAttack):
    """RAID's article-deletion attack: deletes *a*, *an* and *the* between spaces, with the space before.

    Args:
        fraction: Share of the articles that are deleted, from 0 to 1.
    """

    def __init__(self, fraction: float = 0.5) -> None:
        super().__init__(fraction)

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Return the spans of the articles, each with the space before."""
        return [article.span() for article in _ARTICLE.finditer(text)]

    def change(self, before: str, rng: np.random.Generator) -> str:
        """Return the empty string."""
        return ""
