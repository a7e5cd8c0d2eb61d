"""Paragraphs where none end."""

from __future__ import annotations

import numpy as np

from lit_detect.attacks.raid import PlaceAttack
from lit_detect.language.entities import split_sentences


class InsertParagraphs(PlaceAttack):
    r"""RAID's paragraph attack: an empty line (``\n\n``) before sentences.

    Args:
        fraction: Share of the gaps between sentences that get one, from 0 to 1.
    """

    def __init__(self, fraction: float = 0.5) -> None:
        super().__init__(fraction)

    def places(self, text: str) -> list[tuple[int, int]]:
        """Return the beginnings of all sentences but the first."""
        return [(start, start) for start, _ in split_sentences(text)[1:]]

    def change(self, before: str, rng: np.random.Generator) -> str:
        """Return two line breaks."""
        return "\n\n"
