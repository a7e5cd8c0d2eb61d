"""Progress of long tasks: a progress bar with an estimate of the remaining time, and time spans in words."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from lit_core.screen import on_screen, progress_bar

Item = TypeVar("Item")


def duration(seconds: float) -> str:
    """Return a time span as text, in seconds, minutes or hours by its length.

    Args:
        seconds: The span in seconds.

    Example:
        >>> duration(42), duration(900), duration(9000)
        ('42 s', '15 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def progress(
    items: Sequence[Item],
    title: str,
    unit: str,
    task: str,
    shown: bool = True,
    size: Callable[[Item], float] = lambda item: 1,
) -> Iterator[Item]:
    """Yield items with a progress bar, and print the estimated remaining time once.

    The time is estimated after the second item, since the first one also loads and warms up. Nothing is printed
    if it is less than a second.

    Args:
        items: The items.
        title: Label of the bar.
        unit: Unit of the items, such as texts or batches.
        task: Start of the printed line, such as ``"Homoglyph: 100 texts"``.
        shown: Whether this process shows the progress; otherwise it only yields the items.
        size: Returns the cost of an item relative to the others.
    """
    begin, done, total = time.perf_counter(), 0.0, sum(map(size, items))
    bar = progress_bar(items, desc=title, unit=f" {unit}", shown=shown and bool(items))
    for index, item in enumerate(bar):
        yield item
        done += size(item)
        if shown and index == 1:
            left = (time.perf_counter() - begin) * (total - done) / max(done, 1e-9)
            if left >= 1:
                bar.write(on_screen(f"{task}, about {duration(left)} to go."))
