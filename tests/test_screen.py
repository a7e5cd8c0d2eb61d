"""What the packages print and write as tables goes through one function for the screen, and one for each format."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from kinds import PACKAGES

from lit_core.errors import RunFailure, UserError
from lit_core.files.tables import CsvWriter, csv_cell, figure_text, html_text, markdown_table, read_cell
from lit_core.screen import say

ROOT = Path(__file__).parents[1]
SCREEN, TABLES = "lit_core/screen.py", "lit_core/files/tables.py"
#: What only one file may call.
ALONE = {
    **dict.fromkeys(("print", "tqdm", "warnings.warn", "traceback.print_exc"), SCREEN),
    **dict.fromkeys(("sys.stdout.write", "sys.stderr.write", "logging.getLogger(__name__)"), SCREEN),
    **dict.fromkeys(("csv.writer", "csv.DictWriter", "html.escape"), TABLES),
}
#: Arguments of matplotlib that are shown as text.
LABELS = {"label", "title", "xlabel", "ylabel"}


@cache
def sources():
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return [(path.relative_to(ROOT).as_posix(), ast.parse(path.read_text())) for path in paths]


def calls(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def is_call(node, *names):
    return isinstance(node, ast.Call) and ast.unparse(node.func) in names


def strangers():
    """Yield the calls that belong into another file."""
    for path, tree in sources():
        for call in calls(tree):
            name = ast.unparse(call.func)
            name = ast.unparse(call) if name == "logging.getLogger" else name
            if ALONE.get(name, path) != path:
                yield f"{path}:{call.lineno} {name}"
        for node in (node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)):
            if node.module != "lit_core.screen" and any(
                re.match("rank_zero_(info|warn|debug)", a.name) for a in node.names
            ):
                yield f"{path}:{node.lineno} {ast.unparse(node)}"


def line_breaks():
    """Yield the lines to be said that have a line break within them, where a name could have one as well."""
    for path, tree in sources():
        for call in calls(tree):
            if is_call(call, "say", "rank_zero_info", "rank_zero_warn", "log.warning", "log.info", "_log.warning"):
                written = [part for arg in call.args if not isinstance(arg, ast.Starred) for part in ast.walk(arg)]
                if any(isinstance(part, ast.Constant) and "\n" in str(part.value) for part in written):
                    yield f"{path}:{call.lineno}"


def pipes():
    """Yield where a line of a Markdown table or a tag of HTML around a value is written by hand."""
    for path, tree in sources():
        for text in (node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)):
            constants = [str(part.value) for part in text.values if isinstance(part, ast.Constant)]
            if path != TABLES and any(part.startswith("| ") or part.endswith(" | ") for part in constants):
                yield f"{path}:{text.lineno}"
            for before, part in zip(text.values, text.values[1:], strict=False):
                inside = isinstance(before, ast.Constant) and re.search(r"<(li|td|th|h\d|p)>$", str(before.value))
                if inside and isinstance(part, ast.FormattedValue) and not is_call(part.value, "html_text"):
                    yield f"{path}:{text.lineno} {ast.unparse(part.value)}"


def columns_by_hand():
    """Yield the rows of tables whose columns have a fixed width or are aligned here: a long name moves the others."""
    for path, tree in sources():
        for text in (node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) and path != TABLES):
            specs = [ast.unparse(part.format_spec) for part in text.values if getattr(part, "format_spec", None)]
            if sum(bool(re.search(r"[<>^]\d", spec)) for spec in specs) > 1:
                yield f"{path}:{text.lineno}"
        for call in calls(tree):
            if path != TABLES and isinstance(call.func, ast.Attribute) and call.func.attr == "rjust":
                yield f"{path}:{call.lineno}"


def labels():
    """Yield the labels of figures that are neither fixed nor made by `figure_text`."""
    for path, tree in sources():
        for call in calls(tree):
            if not isinstance(call.func, ast.Attribute) or call.func.attr not in ("plot", "set", "errorbar", "scatter"):
                continue
            for keyword in call.keywords:
                fixed = isinstance(keyword.value, ast.Constant) or is_call(keyword.value, "figure_text")
                if keyword.arg in LABELS and not fixed:
                    yield f"{path}:{call.lineno} {keyword.arg}={ast.unparse(keyword.value)}"


@pytest.mark.parametrize("walk", [strangers, line_breaks, pipes, columns_by_hand, labels])
def test_every_place(walk):
    assert list(walk()) == []


HOSTILE = "a\x1b[2J\n\r\tb\u202etac\u200b\u2028\x9b\x00\ud800|<script>`[x](y)"


@pytest.mark.parametrize("line", [HOSTILE, Path("x\n"), RunFailure(HOSTILE), UserError(HOSTILE), "é ß 猫 –"])
def test_a_line_on_the_screen_is_one_line(line, capsys):
    say("first", line)
    first, second, end = capsys.readouterr().out.split("\n")
    assert (first, end) == ("first", "") and second.isprintable()
    assert str(line) == "é ß 猫 –" or "\\x1b[2J" in second or second == "x\\n"


@pytest.mark.parametrize("error", [UserError, RunFailure])
def test_the_sentence_of_an_error_is_one_line(error):
    assert str(error(f"{HOSTILE}; correct it.")).isprintable()


@pytest.mark.parametrize(
    "cell", ["=1+1", "+A1", "-A1", "@SUM(A1)", "\t=1", "\r=1", " =1", "＝1", "-2+3+cmd|' /C calc'!A0"]
)
def test_no_cell_is_a_formula(cell):
    assert csv_cell(cell) == f"'{cell}" and read_cell(csv_cell(cell)) == cell


@pytest.mark.parametrize(
    "cell", [-1, -0.5, "-0.5", "+0.031", "-1.2e-05", "-inf", "-0.1 to +0.2", "1,024", "-", "–", "a=b", ""]
)
def test_numbers_and_words_stay(cell):
    assert csv_cell(cell) == cell and read_cell(str(cell)) == str(cell)


def test_pages_show_names_as_text():
    _, rule, row = markdown_table(["name"], [[f"{HOSTILE}\\|"]])
    assert rule == "|---|" and re.sub(r"\\\\|\\\|", "", row).count("|") == 2 and "<script" not in row
    assert "](" not in row.replace("\\](", "") and row.isprintable()
    assert "<" not in html_text(HOSTILE) and html_text(HOSTILE).isprintable()
    assert figure_text("$x$") == "\\$x\\$"


def test_a_table_of_mappings_has_its_columns(tmp_path):
    with (tmp_path / "t.csv").open("w", newline="") as file:
        table = CsvWriter(file, ["=a", "b"])
        table.header()
        table.rows([{"b": -1}, {"=a": "=x", "b": "-1"}])
    assert (tmp_path / "t.csv").read_text() == "'=a,b\n,-1\n'=x,-1\n"
