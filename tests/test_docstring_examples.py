"""The examples in docstrings show what the code returns."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for package in sorted(ROOT.glob("lit_*"))
    for path in sorted(package.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


def test_modules_with_examples_are_found():
    assert {"lit_core", "lit_detect", "lit_moe", "lit_valuation"} == {module.partition(".")[0] for module in MODULES}


@pytest.mark.parametrize("module", MODULES)
def test_examples_are_true(module):
    found = doctest.testmod(importlib.import_module(module.removesuffix(".__init__")))
    assert found.attempted and not found.failed
