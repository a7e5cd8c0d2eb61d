"""Records of texts and the conditions under which they were written; edits of a text, and names mentioned in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

HUMAN, MACHINE = 0, 1
#: Source of human text.
HUMAN_SOURCE = "human"
SPLITS = ("train", "val", "test")
#: What tells machine texts apart; only the domain, and what is in ``meta``, describes human texts as well.
FIELDS = ("domain", "generator", "decoding", "priming", "attack")
#: Name of what is not known, and of no attack.
NONE = "none"
#: Part of the decoding that is a condition of its own, or none.
_NOT_DECODING = ("priming_tokens", "seed", "max_new_tokens")


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


@dataclass(frozen=True)
class Edit:
    """One change.

    Args:
        start: Where it begins in the original text, in characters.
        end: Where it ends there; equal to start for an insertion.
        before: What stood there.
        after: What stands there now.
    """

    start: int
    end: int
    before: str
    after: str


@dataclass(frozen=True)
class Mention:
    """A name in a text.

    Args:
        sentence: Index of its sentence in the text, from 0.
        start: Offset of its first character in the text.
        end: Offset after its last character.
        text: The name as written, ``text[start:end]`` of the text.
    """

    sentence: int
    start: int
    end: int
    text: str


def condition(record: Record, field: str) -> str:
    """Return the condition of a text by name.

    Args:
        record: The text.
        field: ``domain``, ``generator``, ``decoding`` (its name where it has one, otherwise all settings but priming,
            length and seed), ``priming`` (tokens), ``attack``, or a key of ``meta`` such as ``language``.

    Returns:
        The name; ``none`` where it is not known, or where nothing attacked.

    Example:
        >>> condition(Record("1", "Hello.", decoding={"top_p": 0.96, "temperature": 1.0, "seed": 3}), "decoding")
        'temperature=1,top_p=0.96'
    """
    if field == "decoding":
        if record.decoding.get("name"):
            return str(record.decoding["name"])
        settings = {key: value for key, value in record.decoding.items() if key not in _NOT_DECODING}
        return (
            ",".join(f"{key}={_plain(settings[key])}" for key in sorted(settings) if settings[key] is not None) or NONE
        )
    found: dict[str, Any] = {
        "domain": record.domain,
        "generator": record.source,
        "priming": record.decoding.get("priming_tokens"),
        "attack": record.attack,
    }
    value = found[field] if field in found else record.meta.get(field)
    return NONE if value in (None, "") else _plain(value)


def describes_humans(field: str) -> bool:
    """Tell whether a condition describes human texts as well, such as the domain or the language."""
    return field == "domain" or field not in FIELDS


def key_part(name: str) -> str:
    """Return a condition's name as a part of a metric key, without slashes and blanks."""
    return re.sub(r"[^\w.,=+\-\[\]]+", "_", name)


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
