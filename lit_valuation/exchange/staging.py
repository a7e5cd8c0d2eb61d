"""Folders to be sent, from the ledger's line to their name: a kill between the two is undone or completed.

A note beside the ledger tells of the folder that is being written. The next command of the ledger reads it: a folder
that the ledger has recorded gets its name, and one that it has not is removed, with all its samples. So nothing is sent
that the ledger does not know, and nothing counts as disclosed that was never there.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

from lit_core.files.json_files import read_json
from lit_core.files.paths import atomic_write, file_sha256, sync_folder
from lit_core.screen import say
from lit_valuation.exchange.manifest import MANIFEST


class _Note(TypedDict):
    target: str
    lines: int


@contextmanager
def staged(note: Path, lines: int, target: Path) -> Iterator[Path]:
    """Yield a new hidden folder beside a target, to be renamed to it after its lines are appended to the ledger.

    Args:
        note: The file that tells of it, until the block ends.
        lines: Number of the ledger's lines before.
        target: The folder to be sent.
    """
    work = _work(target)
    atomic_write(note, json.dumps({"target": str(target.absolute()), "lines": lines}))
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)
        note.unlink()


def noted_lines(note: Path) -> int:
    """Return the number of the ledger's lines before those of the folder that a note tells of."""
    lines: int = _read(note)["lines"]
    return lines


def finish_staged(note: Path, recorded: Collection[str]) -> None:
    """Complete the folder that a note tells of if the ledger has recorded it, or else remove it.

    Args:
        note: The note that a killed command has left.
        recorded: Digests of the lines after the number in the note.
    """
    target = Path(_read(note)["target"])
    work, manifest = _work(target), _work(target) / MANIFEST
    if manifest.is_file() and file_sha256(manifest) in recorded and not target.exists():
        os.rename(work, target)
        sync_folder(target.parent)
        say(f"{target} was recorded by a command that was killed then; it is complete now.")
    shutil.rmtree(work, ignore_errors=True)
    note.unlink()


def _read(note: Path) -> _Note:
    content: _Note = read_json(note, _Note, "remove it, and the hidden folder beside what was to be sent")
    return content


def _work(target: Path) -> Path:
    return target.with_name(f".{target.name}.staged")
