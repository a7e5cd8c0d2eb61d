"""Base class of attacks, their result, and the helpers that they share: applying edits, checking a fraction.

To add an attack, derive from `Attack`, export it from ``lit_detect.attacks``, and write its YAML in
``configs/detect/attack`` and its test.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lit_core.errors import check_shares
from lit_detect.records import Edit


@dataclass(frozen=True)
class Attacked:
    """Result of an attack on a text. Applying the edits to the original text gives the attacked text.

    Args:
        text: The attacked text.
        edits: The changes, sorted by offset and without overlap.
        queries: Number of texts that the attacked detector scored.
        meta: Settings and counts of the attack, as plain values.

    Raises:
        ValueError: If the edits overlap or are not sorted by offset, which is a fault of the attack.
    """

    text: str
    edits: tuple[Edit, ...]
    queries: int = 0
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_order(self.edits)


class Attack(ABC):
    """Base class of attacks, which change texts so that a detector may miss them.

    Attributes:
        name: Name of the class, and in brackets the names of the models and resources that it uses. The name of the
            class is the default.
    """

    name: str

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "name" not in vars(cls):
            cls.name = cls.__name__

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

    Raises:
        ValueError: If the edits overlap or are not sorted by offset.

    Example:
        >>> apply_edits("a cat", [Edit(2, 5, "cat", "dog")])
        'a dog'
    """
    _check_order(edits)
    parts, end = [], 0
    for edit in edits:
        parts += [text[end : edit.start], edit.after]
        end = edit.end
    return "".join([*parts, text[end:]])


def attacked(text: str, edits: Sequence[Edit], queries: int = 0, **meta: object) -> Attacked:
    """Return the result of an attack from the original text and the edits.

    Args:
        text: The original text.
        edits: The edits, sorted by offset and without overlap.
        queries: Number of texts that the attacked detector scored.
        meta: Settings and counts of the attack, as plain values.
    """
    return Attacked(apply_edits(text, edits), tuple(edits), queries, meta)


def checked_fraction(name: str, fraction: float) -> float:
    """Return the fraction if it is valid.

    Args:
        name: Name of the argument that gives the fraction.
        fraction: Its value.

    Raises:
        UserError: If it is below 0 or above 1.
    """
    check_shares(**{name: fraction})
    return fraction


def _check_order(edits: Sequence[Edit]) -> None:
    end = 0
    for edit in edits:
        if not end <= edit.start <= edit.end:
            raise ValueError(
                f"The edit from {edit.start} to {edit.end} comes after one that ends at {end}; an attack must sort its "
                "edits by offset, and they must not overlap."
            )
        end = edit.end
