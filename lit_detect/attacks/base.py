"""Base class of attacks, their result, and how edits are applied to a text.

To add an attack, derive from `Attack`, export it from ``lit_detect.attacks``, and write its YAML in
``configs/detect/attack`` and its test.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lit_detect.records import Edit


@dataclass(frozen=True)
class Attacked:
    """Result of an attack on a text. Applying the edits to the original text gives the attacked text.

    Args:
        text: The attacked text.
        edits: The changes, sorted by offset and without overlap.
        queries: Number of texts that the attacked detector scored.
        meta: Settings and counts of the attack, as plain values.
    """

    text: str
    edits: tuple[Edit, ...]
    queries: int = 0
    meta: Mapping[str, Any] = field(default_factory=dict)


class Attack(ABC):
    """Base class of attacks, which change texts so that a detector may miss them.

    Attributes:
        name: Name of the class, and in brackets the names of the models and resources that it uses.
    """

    name: str

    @abstractmethod
    def __call__(self, text: str, seed: int) -> Attacked:
        """Attack a text. Equal texts and seeds give equal results, in any order of calls.

        Args:
            text: The text.
            seed: Seed of the random choices, 0 or more.
        """

    def attack_many(self, texts: Sequence[str], seed: int) -> list[Attacked]:
        """Attack each of several texts with the same seed; the result for a text does not depend on the others."""
        return [self(text, seed) for text in texts]


def apply_edits(text: str, edits: Sequence[Edit]) -> str:
    """Return a text with edits applied.

    Args:
        text: The original text.
        edits: The edits, sorted by offset and without overlap.

    Example:
        >>> apply_edits("a cat", [Edit(2, 5, "cat", "dog")])
        'a dog'
    """
    parts, end = [], 0
    for edit in edits:
        parts += [text[end : edit.start], edit.after]
        end = edit.end
    return "".join([*parts, text[end:]])
