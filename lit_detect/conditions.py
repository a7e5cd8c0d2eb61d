"""Under what conditions a text came to be: its domain, generator, decoding, priming and attack, as names for tables."""

from __future__ import annotations

import re
from typing import Any

from lit_detect.records import Record

#: What tells machine texts apart; only the domain, and what is in ``meta``, describes human texts as well.
FIELDS = ("domain", "generator", "decoding", "priming", "attack")
#: Name of what is not known, and of no attack.
NONE = "none"
#: Part of the decoding that is a condition of its own, or none.
_NOT_DECODING = ("priming_tokens", "seed", "max_new_tokens")


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
