"""Cells of the tables that we write: CSV, Markdown and HTML, columns on the screen, labels for figures.

A cell may hold a name that comes from others. In a spreadsheet it must not be a formula, in a page neither markup nor a
further cell. `tests/test_screen.py` checks that every table is written through this file.
"""

from __future__ import annotations

import csv
import html
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from lit_core.screen import on_screen

#: What begins a formula, in its ASCII and its full-width form, perhaps behind blanks and control characters.
_FORMULA = re.compile(r"[\s\x00-\x1f]*[=+\-@＝＋－＠]|[\t\r\n]")
_NUMBER = r"[+-]?(\d[\d,]*(\.\d*)?(e[+-]?\d+)?|nan|inf)%?"
_NUMBERS = re.compile(rf"{_NUMBER}( to {_NUMBER})?|-", re.IGNORECASE)
_MARKDOWN = re.compile(r"[\\|]|\](?=[(\[:])")


def csv_cell(value: Any) -> Any:
    """Return a cell that no spreadsheet takes for a formula: such a text gets an apostrophe in front.

    Numbers stay as they are, also negative ones and intervals such as ``-0.1 to +0.2``.

    Args:
        value: The value of the cell.

    Example:
        >>> csv_cell("=HYPERLINK(A1)"), csv_cell("-0.5"), csv_cell(-0.5), csv_cell("cat")
        ("'=HYPERLINK(A1)", '-0.5', -0.5, 'cat')
    """
    is_formula = isinstance(value, str) and _FORMULA.match(value) and not _NUMBERS.fullmatch(value)
    return f"'{value}" if is_formula else value


def read_cell(text: str) -> str:
    """Return the text that `csv_cell` got, from a file that we wrote."""
    return text[1:] if text.startswith("'") and csv_cell(text[1:]) == text else text


class CsvWriter:
    """Writes rows to a CSV file, in which no cell is a formula.

    Args:
        file: The open file.
        columns: Names of the columns, for rows that are mappings; None for rows that are sequences.
        lineterminator: End of each line.
    """

    def __init__(self, file: Any, columns: Sequence[str] | None = None, lineterminator: str = "\n") -> None:
        self.columns = columns
        self._writer = csv.writer(file, lineterminator=lineterminator)

    def header(self) -> None:
        """Write the names of the columns."""
        self.row(self.columns or [])

    def row(self, row: Sequence[Any] | Mapping[str, Any]) -> None:
        """Write a row; a column that a mapping lacks is left empty."""
        if isinstance(row, Mapping):
            row = [row.get(name, "") for name in self.columns or row]
        self._writer.writerow([csv_cell(value) for value in row])

    def rows(self, rows: Iterable[Sequence[Any] | Mapping[str, Any]]) -> None:
        """Write several rows."""
        for row in rows:
            self.row(row)


def markdown_text(value: Any) -> str:
    r"""Return a text of a Markdown page, or a cell of a table there, that is neither markup nor a further cell.

    Args:
        value: The text.

    Example:
        >>> print(markdown_text("<b>|[x](y)"))
        &lt;b&gt;\|[x\](y)
    """
    return _MARKDOWN.sub(r"\\\g<0>", html.escape(on_screen(value), quote=False))


def markdown_table(header: Sequence[Any], rows: Iterable[Sequence[Any]]) -> list[str]:
    """Return the lines of a Markdown table.

    Args:
        header: Names of the columns.
        rows: The cells.
    """
    texts = [[markdown_text(cell) for cell in line] for line in (header, *rows)]
    written = ["".join(f"| {text} " if text else "| " for text in line) + "|" for line in texts]
    return [written[0], "|" + "---|" * len(header), *written[1:]]


def text_table(rows: Iterable[Sequence[Any]]) -> list[str]:
    r"""Return the lines of a table on the screen: the first column stands left, the others right.

    Args:
        rows: The cells, with those of the header; a row of one cell is a heading, which makes no column wider.

    Example:
        >>> print("\n".join(text_table([["", "loss"], ["austen", "3.25"], ["stdlib", "12.5"]])))
                loss
        austen  3.25
        stdlib  12.5
    """
    lines = [[on_screen(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip_longest(*(line for line in lines if line[1:]), fillvalue="")]
    return [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=False))
        ).rstrip()
        if line[1:]
        else line[0]
        for line in lines
    ]


def html_text(value: Any) -> str:
    """Return a text of an HTML page that is no markup."""
    return html.escape(on_screen(value))


def figure_text(value: Any) -> str:
    """Return a label of a figure of matplotlib, which takes what is between dollar signs for mathematics."""
    return on_screen(value).replace("$", r"\$")
