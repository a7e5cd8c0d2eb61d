"""The only reader of CSV and TSV files with a line of names; errors name file and line."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from lit_core.errors import UserError
from lit_core.files.text_files import decoded, lines_of, opened

TAB = "\t"
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
            yield where, by_column(header, row, where, separator)


def by_column(header: list[str], row: list[str], where: str, separator: str) -> dict[str, str]:
    """Return the cells of a row by column.

    Raises:
        UserError: If the row has more or fewer cells than the first line.
    """
    if len(row) != len(header):
        tabs = " A .tsv has no quotes around cells; write cells with tabs or line breaks as .csv."
        raise UserError(
            f"{where} ends a row of {len(row)} cells, but the first line names {len(header)}; fix the row, or restore "
            f"the file where it is cut off.{tabs if separator == TAB else ''}"
        )
    return dict(zip(header, row, strict=True))


def separated(lines: Iterable[str], separator: str) -> Any:
    """Return a reader of the cells of each row; where tabs separate them, quotes are characters like all others."""
    if separator == TAB:
        return csv.reader(lines, delimiter=TAB, quoting=csv.QUOTE_NONE, strict=True)
    return csv.reader(lines, delimiter=separator, strict=True)


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

    rows = separated(counted(), separator)
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
