"""Progress of long work: a time span in words, and a bar that says once how long the rest will take."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from tqdm import tqdm  # type: ignore[import-untyped]

Item = TypeVar("Item")


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


def progress(
    items: Sequence[Item],
    title: str,
    unit: str,
    task: str,
    shown: bool = True,
    size: Callable[[Item], float] = lambda item: 1,
) -> Iterator[Item]:
    """Yield the items with a progress bar, and print once how long the remaining ones will take.

    The time is estimated after the second item, since the first one also loads and warms up. Nothing is printed where
    it is less than a second.

    Args:
        items: What is worked on, one after the other.
        title: Label of the bar.
        unit: What an item is called, such as text or batch.
        task: Start of the printed line, such as ``"Homoglyph: 100 texts"``.
        shown: Whether this process shows anything; the others only yield.
        size: Returns the cost of an item relative to the others.
    """
    begin, done, total = time.perf_counter(), 0.0, sum(map(size, items))
    bar = tqdm(items, desc=title, unit=unit, disable=None if shown and items else True, leave=False)
    for index, item in enumerate(bar):
        yield item
        done += size(item)
        if shown and index == 1:
            left = (time.perf_counter() - begin) * (total - done) / max(done, 1e-9)
            if left >= 1:
                bar.write(f"{task}, about {duration(left)} to go.")
