"""How long something takes, in words."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Return a time span in the unit that suits it.

    Args:
        seconds: The span.

    Example:
        >>> duration(42), duration(900), duration(9000)
        ('42 s', '15 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
