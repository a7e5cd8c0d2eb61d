"""No regular expression of the packages takes time that grows faster than the text: others choose the text."""

import ast
import importlib
import math
import re
from functools import cache
from pathlib import Path

import pytest

from tests.regex_steps import Steps

ROOT = Path(__file__).parents[1]
PACKAGES = ("lit_core", "lit_detect", "lit_moe", "lit_valuation")
FUNCTIONS = ("compile", "search", "match", "fullmatch", "split", "sub", "subn", "findall", "finditer")
ANCHORED = {"match", "fullmatch"}
#: Patterns whose text is known only when they are used, and what they are matched with.
KNOWN_LATER = {
    "lit_core/board/runs.py": "charts' patterns, whose repetitions are counted",
    "lit_core/callbacks/monitored_keys.py": "patterns made of our own docs",
    "lit_core/lightning/loggers.py": "patterns of the modules' and callbacks' code",
    "lit_moe/nn/gates.py": "the user's own pattern",
    "lit_moe/nn/hf_shrink.py": "the rules of its table, which are found compiled",
    "lit_moe/nn/hf_precision.py": "patterns of transformers' own classes",
}
#: Modules whose patterns read texts of a bounded length, or no texts of others.
SHORT = {
    "lit_core/board/charts.py": "drawings by matplotlib of numbers alone",
    "lit_moe/nn/hf_shrink.py": "keys of a config, of at most 100 characters",
    "lit_core/parser_messages.py": "lines of jsonargparse, cut to 2,000 characters",
}


@cache
def trees():
    paths = [
        path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")) if path.name != "__main__.py"
    ]
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text()) for path in paths}


@cache
def methods():
    """The methods that are called on each name, in all modules."""
    found = {}
    for tree in trees().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                found.setdefault(node.value.id, set()).add(node.attr)
    return found


def text_of(node, namespace):
    """The text of an argument; parts of an f-string that are known only later are a word."""
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part, namespace) or "x" for part in node.values)
    if isinstance(node, ast.FormattedValue):
        node = node.value
    try:
        return eval(compile(ast.Expression(node), "", "eval"), dict(namespace))
    except Exception:
        return None


def compiled(value):
    """Patterns in the constants of a module."""
    if isinstance(value, re.Pattern):
        yield value
    elif isinstance(value, list | tuple | set | frozenset | dict):
        for part in value.values() if isinstance(value, dict) else value:
            yield from compiled(part)


@cache
def patterns():
    """Each pattern with its module, and whether it is only matched from the beginning of a text."""
    found, later = {}, set()
    for name, tree in trees().items():
        if "re" not in {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}:
            continue
        module = importlib.import_module(name.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
        for key, value in vars(module).items():
            for pattern in compiled(value):
                used = methods().get(key, set()) & set(FUNCTIONS)
                anchored = bool(used) and used <= ANCHORED and isinstance(value, re.Pattern)
                found[pattern.pattern, pattern.flags] = (
                    name,
                    anchored and found.get((pattern.pattern, pattern.flags), (0, True))[1],
                )
        for node in ast.walk(tree):
            is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            if not is_call or node.func.attr not in FUNCTIONS or ast.unparse(node.func.value) != "re":
                continue
            text = text_of(node.args[0], vars(module))
            if text is None or isinstance(text, re.Pattern):
                later.add(name)
                continue
            flags = next((text_of(word.value, vars(module)) for word in node.keywords if word.arg == "flags"), 0)
            if not flags and node.func.attr != "sub" and len(node.args) == 3 - (node.func.attr == "compile"):
                flags = text_of(node.args[-1], vars(module))
            pattern = re.compile(text, flags)
            if node.func.attr != "compile":
                found.setdefault((pattern.pattern, pattern.flags), (name, node.func.attr in ANCHORED))
            elif (pattern.pattern, pattern.flags) not in found and "x" not in text:
                found[pattern.pattern, pattern.flags] = (name, False)
    return [(name, re.compile(*key), anchored) for key, (name, anchored) in found.items()], later


def growth(pattern, anchored, length=30):
    """The largest factor by which the steps grow when a text is twice as long, with that text."""
    steps, worst = Steps(pattern), (0.0, "")
    for short, long in zip(steps.attacks(length), steps.attacks(2 * length), strict=True):
        try:
            few = steps.search(short, anchored)
            many = steps.search(long, anchored)
        except OverflowError:
            return math.inf, short
        worst = max(worst, (many / few, short) if few > length else worst)
    return worst


def test_every_pattern_is_found():
    found, later = patterns()
    assert len(found) > 80 and later <= KNOWN_LATER.keys()


def test_every_pattern_is_linear():
    found = [(name, *pattern) for name, *pattern in patterns()[0] if name not in SHORT]
    grown = [(name, pattern.pattern, *growth(pattern, anchored)) for name, pattern, anchored in found]
    assert [slow for slow in grown if slow[2] > 2.9] == []


@pytest.mark.parametrize(
    ("pattern", "anchored", "linear"),
    [
        (r"\w+@", False, False),
        (r"(?<!\w)\w+@", False, True),
        (r"\w+@", True, True),
        (r"[ \t]+$", False, False),
        (r"\[([^\]]*)\]", False, False),
        (r"\[[^\[\]]*\]", False, True),
        (r"(?:[a-z]\.)+x", False, False),
        (r"(?:a|b|ab)*c", True, False),
        (r"\s*-\s*", False, False),
        (r".*x.*y", True, False),
        (r"\S+", False, True),
        (r"(a+)+$", True, False),
    ],
)
def test_the_count_tells_them_apart(pattern, anchored, linear):
    compiled = re.compile(pattern)
    assert (growth(compiled, anchored)[0] < 2.9) is linear
    steps = Steps(compiled)  # which matches as re does
    for text in ("a@b", "ab-", "[a][b", " \t", "a.b.x", "abc", "a - b", "axby", "aaa", ""):
        ends = [end for end in steps_ends(steps, text)]
        assert ends == [match.end() for match in compiled.finditer(text)], text


def steps_ends(steps, text):
    steps.text, at = text, 0
    while at <= len(text):
        end = next(steps._sequence(steps.tree, 0, at), None)
        if end is None:
            at += 1
            continue
        yield end
        at = end + (end == at)
