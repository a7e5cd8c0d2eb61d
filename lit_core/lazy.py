"""Exports of a package that are imported when they are first used, so that commands start without all others.

A package writes them as imports under ``if TYPE_CHECKING:``, where people and type checkers read them.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any


def exports(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` of a package (PEP 562), which know the imports for type checkers.

    Args:
        package: The package's ``__name__``.
    """
    places: dict[str, str] = {}

    def find(name: str) -> Any:
        if not places:
            places.update(_imports_for_type_checkers(package))
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(places[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        module = sys.modules[package]
        return sorted({*vars(module), *module.__all__})

    return find, names


def _imports_for_type_checkers(package: str) -> dict[str, str]:
    """Return the module of each name that a package imports under ``if TYPE_CHECKING:``."""
    spec = find_spec(package)
    source = getattr(spec.loader, "get_source")(package) if spec else ""  # noqa: B009  # of loaders that read sources
    blocks = [
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    ]
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom) and node.module]
    return {alias.name: str(node.module) for node in imports for alias in node.names}
