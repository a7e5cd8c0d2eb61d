"""Finished rows of long work, on the disk as they come, so that a killed run goes on behind them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


class Journal:
    """A file of JSON lines that one process appends to.

    Args:
        path: The file; made if needed, with its folder. What a kill left of a last row is cut off.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab+")
        self._file.seek(0)
        self._file.truncate(self._file.read().rfind(b"\n") + 1)

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows; when this returns they survive a kill and a power loss."""
        self._file.write("".join(json.dumps(row) + "\n" for row in rows).encode())
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_journal(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a journal, also while another process appends; none where there is no file."""
    if not path.exists():
        return []
    # behind the last line break is nothing, or a part of a row
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]]
