"""Attack that inserts paragraph breaks between sentences."""

from __future__ import annotations

import numpy as np

from lit_detect.attacks.raid import SpanAttack
from lit_detect.language.entities import split_sentences


class InsertParagraphs(SpanAttack):
    r"""RAID's paragraph attack: inserts paragraph breaks (``\n\n``) before sentences.

    Args:
        fraction: Share of the sentences after the first one that get a break, from 0 to 1.
    """

    def __init__(self, fraction: float = 0.5) -> None:
        super().__init__(fraction)

    def spans(self, text: str) -> list[tuple[int, int]]:
        """Return the start of each sentence but the first, as empty spans."""
        return [(start, start) for start, _ in split_sentences(text)[1:]]

    def change(self, before: str, rng: np.random.Generator) -> str:
        """Return two line breaks."""
        return "\n\n"
