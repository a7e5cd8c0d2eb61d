"""Lists of thousands of entries in configs and checkpoints, which jsonargparse would copy once for each entry."""

from __future__ import annotations

import copy
from typing import Any

import jsonargparse._typehints


def read_long_lists() -> None:
    """Let the time that jsonargparse takes for a list grow as the list does; it took minutes for 6,000 entries."""
    jsonargparse._typehints.deepcopy = _copied  # type: ignore[assignment]


def _copied(value: Any, memo: Any = None) -> Any:
    """Return a copy of what jsonargparse passes on to each entry of a list, without copies of the list, only read."""
    if isinstance(value, dict) and "orig_val" in value:
        return {key: one if key in ("orig_val", "prev_val") else copy.deepcopy(one) for key, one in value.items()}
    return copy.deepcopy(value, memo)
