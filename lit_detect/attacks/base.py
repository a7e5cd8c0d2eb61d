"""What all attacks share: a text and a seed in, the changed text and its edits out.

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
    """What an attack made of a text; applying the edits to the original gives the text.

    Args:
        text: The changed text.
        edits: The changes, by place and without overlap.
        queries: How often the attacked detector was asked.
        meta: What else is worth keeping, as plain values.
    """

    text: str
    edits: tuple[Edit, ...]
    queries: int = 0
    meta: Mapping[str, Any] = field(default_factory=dict)


class Attack(ABC):
    """Changes texts so that a detector may miss them.

    Attributes:
        name: Class and what it is built from, by their true names.
    """

    name: str

    @abstractmethod
    def __call__(self, text: str, seed: int) -> Attacked:
        """Attack a text; equal texts and seeds give equal results, whatever came before.

        Args:
            text: The text.
            seed: Seed of what is drawn, 0 or more.
        """

    def attack_many(self, texts: Sequence[str], seed: int) -> list[Attacked]:
        """Attack several texts, each as if alone with the seed."""
        return [self(text, seed) for text in texts]


def apply_edits(text: str, edits: Sequence[Edit]) -> str:
    """Return a text with edits applied.

    Args:
        text: The original.
        edits: By place and without overlap.

    Example:
        >>> apply_edits("a cat", [Edit(2, 5, "cat", "dog")])
        'a dog'
    """
    parts, place = [], 0
    for edit in edits:
        parts += [text[place : edit.start], edit.after]
        place = edit.end
    return "".join([*parts, text[place:]])
