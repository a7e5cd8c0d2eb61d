"""`Verb`, a command of a package that is imported when it is run, so that all others start without it."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from lit_core.cli.source import function_in

#: What Lightning's commands do here.
LIGHTNING = {
    "fit": "Train a model, resume a run, or branch from a checkpoint.",
    "validate": "Evaluate a model or a checkpoint on the validation data.",
    "test": "Evaluate a model or a checkpoint on the test data.",
    "predict": "Write what a model or a checkpoint predicts for new data.",
}


@dataclass(frozen=True)
class Verb:
    """Where the function of a verb is found.

    Args:
        module: Import path of its module.
        name: Name of the function.
        package: Package that the function is made for, by a function whose name ends in ``_verb``; empty for one that
            is the same for all.
    """

    module: str
    name: str
    package: str = ""

    def load(self) -> Callable[..., Any]:
        """Import the function."""
        module = import_module(self.module)
        function: Callable[..., Any]
        function = getattr(module, f"{self.name}_verb")(self.package) if self.package else getattr(module, self.name)
        return function

    def purpose(self) -> str:
        """Return the first line of the function's docstring, without importing its module."""
        return first_line(ast.get_docstring(function_in(self.module, self.name)))


def load(verb: Callable[..., Any] | Verb) -> Callable[..., Any]:
    """Return the function of a verb."""
    return verb.load() if isinstance(verb, Verb) else verb


def purpose(verb: Callable[..., Any] | Verb) -> str:
    """Return what a verb does, in one line."""
    return verb.purpose() if isinstance(verb, Verb) else first_line(verb.__doc__)


def first_line(text: str | None) -> str:
    """Return the first line of a docstring."""
    return (text or "").strip().partition("\n")[0]
