"""Rows that cannot be read: the first one ends the command, or all are set aside with file, place and reason."""

from __future__ import annotations

import re
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Literal

from lit_core.errors import UserError
from lit_core.files.outputs import output_file
from lit_core.files.paths import atomic_path
from lit_core.files.tables import CsvWriter
from lit_core.screen import say

OnError = Literal["stop", "skip"]
#: Name of the file of rows that are set aside, or its end.
SET_ASIDE = "set_aside.csv"
#: Most rows that are set aside: what has more is another kind of file.
_MOST = 100_000
_PLACE = re.compile(r"(?s)(.*), ((?:line|row|text|pair) [\d,]+)")


@dataclass(frozen=True)
class SetAside:
    """A row that is set aside.

    Args:
        file: Its file.
        row: Its place in the file, such as ``line 3``; empty where it is the whole file.
        reason: What is wrong with it.
    """

    file: str
    row: str
    reason: str


#: First line of the list.
_HEADER = ",".join(field.name for field in fields(SetAside))


class BadRows:
    """What becomes of the bad rows that a command reads.

    Args:
        on_error: stop raises what is wrong with a row; skip sets it aside, and the others are read.

    Attributes:
        rows: The rows that are set aside.
    """

    def __init__(self, on_error: OnError = "stop") -> None:
        if on_error not in ("stop", "skip"):
            raise UserError(f"`on_error` is {on_error!r}, but must be stop or skip; choose one.")
        self.on_error = on_error
        self.rows: list[SetAside] = []

    @property
    def skips(self) -> bool:
        """Whether bad rows are set aside."""
        return self.on_error == "skip"

    def add(self, where: str, error: UserError) -> None:
        """Set a row aside, or raise what is wrong with it.

        Args:
            where: File and line, or the file.
            error: What is wrong.

        Raises:
            UserError: If a bad row ends the command, or there are very many.
        """
        if not self.skips:
            raise error
        if len(self.rows) == _MOST:
            raise UserError(f"More than {_MOST:,} rows cannot be read, the last since {error}") from error
        self.rows.append(SetAside(*divided(where), str(error)))

    def check_output(self, path: Path) -> Path:
        """Return the path of the file that `write` will write, if it is to be written.

        Args:
            path: The file. A former list there is replaced: it belongs to an output that is refused where it exists.

        Raises:
            UserError: If there is another file, which only ``--overwrite`` replaces, or nothing can be written there.
        """
        if not self.skips:
            return path
        is_list = path.is_file() and path.read_bytes()[: len(_HEADER) + 1] == f"{_HEADER}\n".encode()
        return output_file(path, "the list of rows that are set aside", continued=is_list)

    def write(self, path: Path) -> None:
        """Write the rows that are set aside as a table, unless bad rows end the command.

        Args:
            path: The file, a .csv.
        """
        if not self.skips:
            return
        with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            table = CsvWriter(file, _HEADER.split(","))
            table.header()
            table.rows(astuple(row) for row in self.rows)

    def tell(self, path: Path) -> None:
        """Say how many rows are set aside, if any.

        Args:
            path: The file that `write` wrote.
        """
        if self.rows:
            what = "1 bad row is" if len(self.rows) == 1 else f"{len(self.rows):,} bad rows are"
            say(f"{what} set aside, with the reason: {path}")


#: Lets the first bad row end the command.
STOP = BadRows()


def beside(output: Path) -> Path:
    """Return the path of the list of rows that are set aside, beside an output that is a file."""
    return output.with_name(f"{output.stem}.{SET_ASIDE}")


def divided(where: str) -> tuple[str, str]:
    """Return the file and the place in it.

    Args:
        where: File and line, as readers name them, or the file.

    Example:
        >>> divided("texts/a, b.csv, line 3"), divided("texts/a.pdf")
        (('texts/a, b.csv', 'line 3'), ('texts/a.pdf', ''))
    """
    found = _PLACE.fullmatch(where)
    return (found[1], found[2]) if found else (where, "")
