"""The only readers of CSV and Parquet files with named columns; errors name file and line."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning_utilities.core.imports import RequirementCache

from lit_core.errors import UserError
from lit_core.files.text_files import decoded, lines_of, opened


def csv_rows(path: Path, separator: str = ",") -> Iterator[tuple[str, dict[str, str]]]:
    """Yield file and line, and the cells by column, of each row of a CSV file with a line of names.

    Raises:
        UserError: If the file is not valid CSV, or a row has more or fewer cells than the first line.
    """
    csv.field_size_limit(sys.maxsize)  # texts are longer than the default allows
    try:
        with opened(path) as file:
            lines = (decoded(line, where) for where, line in lines_of(file, path))
            rows = csv.reader(lines, delimiter=separator, strict=True)
            header = next(rows, [])
            if not header or len(set(header)) != len(header):
                raise UserError(f"{path}, line 1 must name each column once, but is {header}. Fix the line.")
            for row in rows:
                if not row:
                    continue
                where = f"{path}, line {rows.line_num}"
                if len(row) != len(header):
                    raise UserError(
                        f"{where} ends a row of {len(row)} cells, but the first line names {len(header)}. Fix the row, "
                        "or restore the file if it is truncated."
                    )
                yield where, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise UserError(f"{path}, line {rows.line_num} is not valid CSV ({error}). Fix or restore the file.") from error


def parquet_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield file and number, and the cells by column, of each row of a Parquet file.

    Raises:
        UserError: If `pyarrow` is not installed, or the file is not complete.
    """
    if not RequirementCache("pyarrow>=14"):
        raise UserError('Parquet needs `pyarrow`; install it with `pip install "lit-shift[detect]"`.')
    from pyarrow import ArrowException, parquet

    number = 0
    try:
        with parquet.ParquetFile(path) as table:
            for batch in table.iter_batches(1000):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", row
    except (ArrowException, OSError, ValueError, KeyError) as error:  # texts that are not UTF-8, and names, too
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is not a complete Parquet file ({reason}). Restore it or write it again.") from error
