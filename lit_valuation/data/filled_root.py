"""The root that ``prepare`` and ``divide`` fill with labelled sets: whole or not at all, with a record of how."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lit_core import __version__
from lit_core.data.prepared import index_hashes
from lit_core.files.formats import stamp
from lit_core.files.paths import atomic_write, remove_folder, replace_whole
from lit_core.files.working_folder import PREPARED, RECORD, WORK, is_prepared, workplace
from lit_core.record import shown, versions


def fill_root(
    folder: Path,
    parts: Sequence[str],
    settings: dict[str, Any],
    is_done: Callable[[], bool],
    write: Callable[[Path], None],
    beside: str = "",
) -> None:
    """Write the contents of a root to a folder inside it, and move them into place when all are written.

    A killed run is completed: what it had written whole is moved, what it had not is written again.

    Args:
        folder: The root.
        parts: Names of the contents, in the order in which they are moved; the last is the record.
        settings: What the contents depend on, in plain values.
        is_done: Tells whether a root that holds something has been filled with these settings; refuses other files.
        write: Writes the contents to a folder, the record last, by `write_root_record`.
        beside: Name of a file in the root that is not one of the contents; empty for none.

    Raises:
        UserError: If the root holds other files, or what a killed run has begun to move there has other settings.
    """
    with workplace(folder, f"ready/{RECORD}") as work:
        ready = work / "ready"
        new = all(path.name in (WORK, beside) for path in folder.iterdir())
        if (ready / RECORD).is_file():  # a killed run had begun to move them into the root
            is_prepared(ready, settings, shown)
        elif new or not is_done():
            remove_folder(work)
            write(ready)
        for part in parts:
            if (ready / part).exists():
                replace_whole(folder / part, ready / part)


def write_root_record(ready: Path, settings: Mapping[str, Any], found: int, kept: int, **more: Any) -> None:
    """Write the record of labelled sets.

    Args:
        ready: The folder of the sets.
        settings: What they depend on, in plain values.
        found: Number of samples in the sources.
        kept: Number of them that are not copies of others.
        more: Further plain values by name.
    """
    content = {
        **stamp(PREPARED),
        "release": __version__,
        "versions": versions(),
        "settings": settings,
        "samples": {"found": found, "copies_left_out": found - kept},
        **more,
        "sets": index_hashes(ready),
    }
    atomic_write(ready / RECORD, json.dumps(content, ensure_ascii=False, indent=1) + "\n")
