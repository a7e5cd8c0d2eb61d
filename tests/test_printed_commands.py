"""Commands that we print can be pasted into a shell, whatever blanks and quotes their paths have."""

import ast
import itertools
import re
import subprocess
from pathlib import Path

import pytest

from lit_core.screen import on_screen, quoted

ROOT = Path(__file__).parents[1]
#: Texts that are not for a shell, by module.
NOT_TYPED = {
    "lit_core/cli/arguments.py": {"path", "' '.join(args[:count])"},  # lines of our own parser
    "lit_valuation/commands/query.py": {"digest(manifest)[:16]"},  # hexadecimal digits
    "lit_valuation/exchange/answering.py": {"which"},  # a class, or words
    "lit_valuation/training/loading.py": {"self.class_path"},  # names and dots, which it has been imported by
}


def values_of_flags():
    """Yield module and expression of each value that follows a flag in a text."""
    for path in sorted(ROOT.glob("lit_*/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            parts = node.values if isinstance(node, ast.JoinedStr) else []
            for text, value in itertools.pairwise(parts):
                flag = isinstance(text, ast.Constant) and re.search(r"--[\w.]+[ =](['\"].*)?$", str(text.value))
                if flag and isinstance(value, ast.FormattedValue):
                    yield path.relative_to(ROOT).as_posix(), value.value


def test_each_value_in_a_printed_command_is_quoted():
    found = list(values_of_flags())
    assert len(found) > 20
    for path, value in found:
        quoted = isinstance(value, ast.Call) and getattr(value.func, "id", "") == "quoted"
        assert quoted or ast.unparse(value) in NOT_TYPED.get(path, ()), f"{path}: {ast.unparse(value)}"


NAMES = ["plain/last.ckpt", "a b", "it's", '"x"', "$HOME", "$(id)", "a;b", "-x", "é", "step=3.ckpt"]


@pytest.mark.parametrize("name", [*NAMES, "a\nb\x1b[2J", "\udc80", "\u202ex'\\"])
def test_a_quoted_path_is_one_word_of_a_shell(name):
    assert on_screen(quoted(name)) == quoted(name)  # nothing in it is escaped once more
    done = subprocess.run(["bash", "-c", f"printf %s {quoted(name)}"], capture_output=True)
    assert done.stdout == name.encode(errors="surrogateescape")
