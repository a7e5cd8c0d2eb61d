"""The only reader of CSV files with a line of names; errors name file and line."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from lit_core.errors import UserError
from lit_core.files.text_files import decoded, lines_of, opened

#: Most bytes of a row, most separators in it, of which a text holds many, and most columns.
_LARGEST, _MOST_SEPARATORS, MOST_COLUMNS = 1 << 26, 5_000_000, 100_000


def csv_rows(path: Path, separator: str = ",") -> Iterator[tuple[str, dict[str, str]]]:
    """Yield file and line, and the cells by column, of each row of a CSV file with a line of names.

    Raises:
        UserError: If the file is not valid CSV, or a row has more or fewer cells than the first line.
    """
    with opened(path) as file:
        rows = csv_cells(file, path, separator)
        _, header, _ = next(rows, (1, [], b""))
        if not header or len(set(header)) != len(header):
            raise UserError(f"{path}, line 1 must name each column once, but is {header}. Fix the line.")
        for line, row, _ in rows:
            if not row:
                continue
            where = f"{path}, line {line}"
            if len(row) != len(header):
                raise UserError(
                    f"{where} ends a row of {len(row)} cells, but the first line names {len(header)}. Fix the row, or "
                    "restore the file if it is truncated."
                )
            yield where, dict(zip(header, row, strict=True))


def csv_cells(file: IO[bytes], path: Path, separator: str) -> Iterator[tuple[int, list[str], bytes]]:
    """Yield, for each row of a CSV file, the line in which it ends, its cells and its bytes; a blank line has no cells.

    Raises:
        UserError: If the file is not valid CSV, or a row is larger than any table has, as a small compressed file may
            hold.
    """
    csv.field_size_limit(_LARGEST)  # texts are longer than the default allows
    lines: list[bytes] = []  # of the present row: the reader takes whole lines

    def counted() -> Iterator[str]:
        size = separators = 0
        for where, line in lines_of(file, path):
            if not lines:
                size = separators = 0
            lines.append(line)
            size += len(line)
            separators += line.count(separator.encode())
            if size > _LARGEST or separators > _MOST_SEPARATORS:
                what = f"{_LARGEST >> 20} MiB" if size > _LARGEST else f"{_MOST_SEPARATORS:,} separators"
                raise UserError(f"{where} belongs to a row of more than {what}; close its quotes, or restore the file.")
            yield decoded(line, where)

    rows = csv.reader(counted(), delimiter=separator, strict=True)
    try:
        for row in rows:
            if len(row) > MOST_COLUMNS:
                raise UserError(
                    f"{path}, line {rows.line_num} has {len(row):,} columns, but at most {MOST_COLUMNS:,} are read; "
                    "divide the table, or correct the separator."
                )
            content = b"".join(lines)
            lines.clear()
            yield rows.line_num, row, content
    except csv.Error as error:
        raise UserError(f"{path}, line {rows.line_num} is not valid CSV ({error}). Fix or restore the file.") from error
