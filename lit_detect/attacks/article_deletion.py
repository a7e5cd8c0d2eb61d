"""Articles left out."""

from __future__ import annotations

import re

import numpy as np

from lit_detect.attacks.raid import PlaceAttack

_ARTICLE = re.compile(r" (?:a|an|the)(?= )")


class ArticleDeletion(PlaceAttack):
    """RAID's article-deletion attack: *a*, *an* and *the* between spaces are left out, with the space before.

    Args:
        fraction: Share of the articles that are left out, from 0 to 1.
    """

    def __init__(self, fraction: float = 0.5) -> None:
        super().__init__(fraction)

    def places(self, text: str) -> list[tuple[int, int]]:
        """Return the articles with the space before."""
        return [article.span() for article in _ARTICLE.finditer(text)]

    def change(self, before: str, rng: np.random.Generator) -> str:
        """Return nothing."""
        return ""
