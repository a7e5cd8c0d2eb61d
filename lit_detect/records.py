"""Records of texts, the conditions under which they were written, edits of a text, and mentions of names."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

HUMAN, MACHINE = 0, 1
#: Source of human text.
HUMAN_SOURCE = "human"
_WORDS = dict.fromkeys(("human", "humanwritten", "humantext", "hwt", "real", "genuine", "0"), HUMAN)
_WORDS |= dict.fromkeys(("machine", "machinegenerated", "machinewritten", "machinetext", "mgt", "generated"), MACHINE)
_WORDS |= dict.fromkeys(("fake", "ai", "aigenerated", "llm", "model", "bot", "1"), MACHINE)
_BETWEEN_WORDS = re.compile(r"(?<=[a-z])[-_ ]+(?=[a-z])")
SPLITS = ("train", "val", "test")
#: Conditions that distinguish machine texts. Only the domain, and keys of ``meta``, describe human texts too.
FIELDS = ("domain", "generator", "decoding", "priming", "attack")
#: Name of an unknown condition, and of no attack.
NONE = "none"
#: Keys of the decoding that do not belong to the condition ``decoding``.
_NOT_DECODING = ("priming_tokens", "seed", "max_new_tokens")


def label_of(word: object) -> int | None:
    """Return 0 for a word or number that means human, 1 for one that means machine, None for another."""
    return _WORDS.get(_BETWEEN_WORDS.sub("", str(word).lower().strip()).removesuffix(".0"))


@dataclass(frozen=True)
class Record:
    """A text with its label and origin.

    Args:
        id: Id of the text, unique in its source.
        text: The text, unchanged.
        label: 0 human, 1 machine; None if it is not known.
        split: ``train``, ``val`` or ``test``; empty if the text has no split yet.
        source: Name of the generator, or ``human``.
        domain: Domain of the text, such as ``news``.
        pair_id: Id that related texts share, such as a human passage and its machine twins, or all passages of a
            document; texts with the same id are in the same split. Empty if the text is unrelated to others.
        decoding: Settings of the generation, as far as known: ``temperature``, ``top_k``, ``top_p``,
            ``repetition_penalty``, ``priming_tokens``, ``seed``.
        attack: Name of the attack that changed the text; empty for none.
        meta: Further fields, as plain values.
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
        """Return all fields as plain values, as in a line of JSONL."""
        return asdict(self)


@dataclass(frozen=True)
class Edit:
    """Replacement of a span of a text.

    Args:
        start: Start of the span in the original text, in characters.
        end: End of the span; equal to start for an insertion.
        before: Text of the span in the original.
        after: Text that replaces it.
    """

    start: int
    end: int
    before: str
    after: str


@dataclass(frozen=True)
class Mention:
    """A mention of a name in a text.

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
    """Return the condition of a text in a field.

    Args:
        record: The text.
        field: ``domain``, ``generator``, ``decoding`` (its name if it has one, otherwise all settings except priming,
            length and seed), ``priming`` (number of tokens), ``attack``, or a key of ``meta`` such as ``language``.

    Returns:
        Name of the condition; ``none`` if it is not known, or if the text is not attacked.

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
    fields: dict[str, Any] = {
        "domain": record.domain,
        "generator": record.source,
        "priming": record.decoding.get("priming_tokens"),
        "attack": record.attack,
    }
    value = fields[field] if field in fields else record.meta.get(field)
    return NONE if value in (None, "") else _plain(value)


def describes_humans(field: str) -> bool:
    """Return whether a field, such as the domain or the language, describes human texts too."""
    return field == "domain" or field not in FIELDS


def records_sha256(records: Iterable[Record]) -> str:
    """Return the SHA-256 of records with all their fields, in their order."""
    digest = hashlib.sha256()
    for record in records:
        digest.update(json.dumps(record.to_dict(), sort_keys=True).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def key_part(name: str) -> str:
    """Return the name of a condition as a part of a metric key, without slashes and spaces."""
    return re.sub(r"[^\w.,=+\-\[\]]+", "_", name)


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
