"""Who is called machine wrongly, and how many machine texts are found: the table on the screen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lit_core.files.tables import text_table
from lit_core.statistics.interval import Interval
from lit_core.statistics.proportion import exact_ends

#: The most rows on the screen.
_SHOWN = 8


@dataclass(frozen=True)
class Called:
    """What a detector called machine at its own threshold.

    Args:
        name: What the row is about: a source, or a detector.
        wrongly: Share of the human texts that it called machine; None without any.
        found: Share of the machine texts that it called machine; None without any.
    """

    name: str
    wrongly: Interval | None
    found: Interval | None


def share(hits: int, n: int) -> Interval | None:
    """Return a share with its Clopper-Pearson interval of 95 %; None of nothing.

    Args:
        hits: Number of hits.
        n: Number of texts.
    """
    return Interval(hits / n, *exact_ends(hits, n), n) if n else None


def called_lines(rows: Sequence[Called]) -> list[str]:
    """Return the table, in at most 80 columns.

    Args:
        rows: The rows, of which the first are shown.
    """
    lines = [["of 1,000 texts", "called machine", "human texts", "machines found", "machine texts"]]
    for row in rows[:_SHOWN]:
        name = row.name if len(row.name) <= 16 else f"{row.name[:15]}…"
        lines.append([name, *_of_1000(row.wrongly), *_of_1000(row.found)])
    more = [[f"and {len(rows) - _SHOWN} more"]] if len(rows) > _SHOWN else []
    return [
        *text_table([*lines, *more]),
        "called machine: of 1,000 people with a text each, who is wrongly called one;",
        "in brackets the 95 % interval; all at the detector's own threshold",
    ]


def _of_1000(share: Interval | None) -> list[str]:
    if share is None or not math.isfinite(share.mean):
        return ["-", "0"]
    ends = f" ({1000 * share.low:.0f}-{1000 * share.high:.0f})" if math.isfinite(share.low) else ""
    return [f"{1000 * share.mean:.0f}{ends}", f"{share.n:,}"]
