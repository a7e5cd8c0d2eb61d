"""Reading of ``metrics.csv``, in which a run keeps what it has logged."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from lit_core.errors import UserError
from lit_core.files.tables import read_cell
from lit_core.files.text_files import decoded, read_whole

#: File in a run folder.
METRICS = "metrics.csv"
#: In TensorBoard, what begins the tags of the keys that answer what a run is made for: they stand first.
ANSWERS = "answer/"
ANSWERS_OR_NOT = f"(?:{ANSWERS})?"
#: What begins the tags of the texts with what has a single value.
ONCE = "once/"


def logged_columns(path: Path) -> list[str]:
    """Return the names of the columns; those of a file that is not there are ``step``.

    Args:
        path: The file.
    """
    return [read_cell(name) for name in next(_cells(_lines(path), path), ["step"])] if path.exists() else ["step"]


def logged_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows as text by column, without the empty cells; a last line that a kill truncated is left out.

    Args:
        path: The file; there need not be one.
    """
    if not path.exists():
        return []
    lines = _lines(path)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
    names, *rows = [*_cells(lines, path)] or [[]]
    whole = [dict(zip(map(read_cell, names), row, strict=False)) for row in rows if len(row) <= len(names)]
    return [{key: value for key, value in row.items() if value} for row in whole if _is_step(row.get("step"))]


def logged_values(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return what a run has logged, as pairs of step and value by key.

    Args:
        folder: The run folder; without a ``metrics.csv`` there is nothing.

    Raises:
        UserError: If a value is not a number.
    """
    values: dict[str, list[tuple[int, float]]] = {}
    for row in logged_rows(folder / METRICS):
        step = int(row.pop("step"))
        for key, value in row.items():
            try:
                values.setdefault(key, []).append((step, float(value)))
            except ValueError as error:
                raise UserError(
                    f"{folder / METRICS} has {value!r} as {key} of step {step}, but it must be a number; restore the "
                    "file."
                ) from error
    return values


def _is_step(text: str | None) -> bool:
    return text is not None and text.isascii() and text.isdigit() and len(text) < 20


def _cells(lines: list[str], path: Path) -> Iterator[list[str]]:
    try:
        yield from csv.reader(lines)
    except csv.Error as error:
        raise UserError(f"{path} is not valid CSV ({error}); restore or remove it.") from error


def _lines(path: Path) -> list[str]:
    return decoded(read_whole(path), str(path), "restore or remove it").splitlines(keepends=True)
