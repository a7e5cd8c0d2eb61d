"""The only reader of CSV and TSV files with a line of names; errors name file and line."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from lit_core.errors import UserError
from lit_core.files.bad_rows import STOP, BadRows
from lit_core.files.text_files import decoded, lines_of, opened

TAB = "\t"
#: Most bytes of a row, most separators in it, of which a text holds many, and most columns.
_LARGEST, _MOST_SEPARATORS, MOST_COLUMNS = 1 << 26, 5_000_000, 100_000


def csv_rows(path: Path, separator: str = ",", bad: BadRows = STOP) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield file and line, and the cells by column, of each row of a CSV file with a line of names.

    Args:
        path: The file; compressed ones are decompressed.
        separator: What separates cells.
        bad: What becomes of a row that is not in UTF-8, or has more or fewer cells than the first line.

    Raises:
        UserError: If there is such a row and it ends the command, or the file is not valid CSV.
    """
    with opened(path) as file:
        rows = csv_cells(file, path, separator, bad)
        _, header, _, _ = next(rows, (1, [], 0, b""))
        if not header or len(set(header)) != len(header):
            raise UserError(f"{path}, line 1 must name each column once, but is {header}. Fix the line.")
        for line, row, _, _ in rows:
            if not row:
                continue
            where = f"{path}, line {line}"
            try:
                cells = by_column(header, row, where, separator)
            except UserError as error:
                bad.add(where, error)
            else:
                yield where, cells


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


def csv_cells(
    file: IO[bytes], path: Path, separator: str, bad: BadRows = STOP
) -> Iterator[tuple[int, list[str], int, bytes]]:
    """Yield, for each row of a CSV file, the line in which it ends, its cells, its first byte and its bytes.

    A blank line has no cells. Where the quotes of a row are wrong, what follows could be a part of it, so the file is
    refused also where bad rows are set aside.

    Args:
        file: The open file.
        path: Its path.
        separator: What separates cells.
        bad: What becomes of a row that is not in UTF-8, or, where tabs separate cells, larger than any table has.

    Raises:
        UserError: If there is such a row and it ends the command, the file is not valid CSV, its first line cannot be
            read, or a row is larger than any table has, as a small compressed file may hold.
    """
    csv.field_size_limit(_LARGEST)  # texts are longer than the default allows
    lines: list[bytes] = []  # of the present row: the reader takes whole lines
    wrong: list[UserError] = []  # with the present row

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
                remedy = "split it" if separator == TAB else "close its quotes"
                wrong.append(UserError(f"{where} belongs to a row of more than {what}; {remedy}, or restore the file."))
                if separator != TAB:
                    raise wrong[-1]
                line = b"\n"
            try:
                yield decoded(line, where)
            except UserError as error:
                wrong.append(error)
                yield line.replace(b"\0", b"?").decode(errors="replace")  # so that its quotes are seen

    rows = separated(counted(), separator)
    is_first = True
    try:
        for row in rows:
            where = f"{path}, line {rows.line_num}"
            if len(row) > MOST_COLUMNS:
                raise UserError(
                    f"{where} has {len(row):,} columns, but at most {MOST_COLUMNS:,} are read; divide the table, or "
                    "correct the separator."
                )
            content = b"".join(lines)
            lines.clear()
            if wrong:
                (STOP if is_first else bad).add(where, wrong[0])
                wrong.clear()
            else:
                yield rows.line_num, row, file.tell() - len(content), content
            is_first = False
    except csv.Error as error:
        raise UserError(f"{path}, line {rows.line_num} is not valid CSV ({error}). Fix or restore the file.") from error
