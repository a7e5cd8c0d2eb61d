"""The table of predictions: its columns, and how it is written."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from lit_core.files.paths import atomic_path, atomic_write
from lit_core.files.tables import CsvWriter

#: What a row holds of each text; of the windows, a CSV has two counts.
ROW = ("index", "file", "row", "id", "score", "probability", "p_value", "decision", "tokens", "reason", "windows")
COLUMNS = (*ROW, "flagged")
NUMBERS = ("score", "probability", "p_value")


def write_table(path: Path, rows: Collection[Mapping[str, Any]]) -> int:
    """Write rows as CSV or JSONL, whole or not at all, and return how many there are.

    Args:
        path: The file; its suffix .csv, .jsonl or .json (RAID's) selects the format.
        rows: The rows, in the order of the table.
    """
    if path.suffix == ".json":
        atomic_write(path, json.dumps(raid_scores(rows), indent=0) + "\n")
        return len(rows)
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        table = CsvWriter(file, COLUMNS)
        if path.suffix == ".csv":
            table.header()
        for row in rows:
            numbers = {key: row[key] if math.isfinite(row[key]) else None for key in NUMBERS}
            if path.suffix == ".csv":
                cells = {key: "" if x is None else f"{x:.6g}" for key, x in numbers.items()}
                table.row({**row, **cells, **_counts(row["windows"])})
            else:
                file.write(json.dumps({**row, **numbers}, ensure_ascii=False) + "\n")
    return len(rows)


def raid_scores(rows: Collection[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what RAID's evaluation takes: id and score of each text, a finite number."""
    lowest = min((row["score"] for row in rows if math.isfinite(row["score"])), default=0.0)
    return [{"id": row["id"], "score": row["score"] if math.isfinite(row["score"]) else lowest} for row in rows]


def _counts(windows: Sequence[Mapping[str, Any]] | None) -> dict[str, Any]:
    """Return the number of windows, and of flagged ones; nothing where a module tells none."""
    if windows is None:
        return {"windows": "", "flagged": ""}
    return {"windows": len(windows), "flagged": sum(window["flagged"] for window in windows)}
