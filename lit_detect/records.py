"""What a text is, whatever file it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

HUMAN, MACHINE = 0, 1
#: Source of human text.
HUMAN_SOURCE = "human"
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Record:
    """A text with all that is known of where it came from.

    Args:
        id: Name of the text, unique in its source.
        text: The text as it was found.
        label: 0 human, 1 machine; None where it is not known.
        split: ``train``, ``val`` or ``test``; empty where the text has no place yet.
        source: Name of the generator, or ``human``.
        domain: What the text is about or taken from, such as ``news``.
        pair_id: Shared by texts that belong together, such as a human passage and its machine twins, and by all
            passages of one document; never divided between splits. Empty where the text stands alone.
        decoding: How it was generated: ``temperature``, ``top_k``, ``top_p``, ``repetition_penalty``,
            ``priming_tokens``, ``seed``, as far as known.
        attack: Name of the attack that changed the text; empty for none.
        meta: Anything else, as plain values.
    """

    id: str
    text: str
    label: int | None = None
    split: str = ""
    source: str = ""
    domain: str = ""
    pair_id: str = ""
    decoding: Mapping[str, Any] = field(default_factory=dict)
    attack: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as plain values, the way they stand in a line of JSONL."""
        return asdict(self)
