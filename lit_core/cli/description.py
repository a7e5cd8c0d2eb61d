"""Verbs as ``--help`` describes them: functions with their signatures, made from the source without their modules."""

from __future__ import annotations

import ast
import builtins
import inspect
from abc import ABCMeta, abstractmethod
from collections.abc import Callable
from importlib import import_module
from typing import Any, get_args

from lit_core.cli.source import definition, function_in, subclasses

#: Attribute of a class that stands for one of ours: the import paths of those that can be named.
KNOWN = "known_classes"


def described(module: str, name: str) -> Callable[..., Any]:
    """Return a function with the name, the signature and the docstring of a verb, for help only.

    Dataclasses in the signature have their fields and no methods; other classes of ours stand for themselves by name.

    Args:
        module: Import path of the verb's module.
        name: Name of its function.
    """
    function = function_in(module, name)
    bare = ast.FunctionDef(name, function.args, function.body[:1], [], None)
    namespace = _Namespaces().run(module, bare)
    found: Callable[..., Any] = namespace[name]
    return found


def known_classes(function: Callable[..., Any]) -> dict[str, list[str]]:
    """Return the import paths of the classes that an argument can name, by argument, of a function of `described`."""

    def known(annotation: Any) -> list[str]:
        inner = [path for one in get_args(annotation) for path in known(one)]
        return [*getattr(annotation, KNOWN, ()), *inner]

    return {name: known(one.annotation) for name, one in inspect.signature(function).parameters.items()}


class _Namespaces:
    """What the statements that were run have defined, by module."""

    def __init__(self) -> None:
        self._of: dict[str, dict[str, Any]] = {}

    def run(self, module: str, node: ast.stmt) -> dict[str, Any]:
        """Run a statement of a module, after those that define the names in it."""
        namespace = self._of.setdefault(module, {"__name__": __name__})
        for part in ast.walk(node):
            if not isinstance(part, ast.Name) or not isinstance(part.ctx, ast.Load):
                continue
            if part.id not in namespace and not hasattr(builtins, part.id):
                self._define(module, part.id)
        tree = ast.fix_missing_locations(ast.Module([node], []))
        exec(compile(tree, module, "exec", dont_inherit=True), namespace)
        return namespace

    def _define(self, module: str, name: str) -> None:
        found = definition(module, name)
        if found is None:  # a local name
            return
        place, node = found
        if isinstance(node, ast.ImportFrom):
            value = getattr(import_module(str(node.module)), _imported(node, name))
        elif isinstance(node, ast.Import):
            value = import_module(_imported(node, name))
        elif isinstance(node, ast.ClassDef) and not _is_dataclass(node):
            value = _placeholder(place, node)
        else:
            own = node.name if isinstance(node, ast.ClassDef | ast.FunctionDef) else name
            value = self._of.get(place, {}).get(own) or self.run(place, _reduced(node))[own]
        self._of[module][name] = value


def _reduced(node: ast.stmt) -> ast.stmt:
    """Return a statement without what only a computation needs."""
    if isinstance(node, ast.ClassDef):
        fields: list[ast.stmt] = [one for one in node.body if isinstance(one, ast.AnnAssign | ast.Expr)]
        return ast.ClassDef(node.name, node.bases, node.keywords, fields, node.decorator_list)
    if isinstance(node, ast.FunctionDef):
        return ast.FunctionDef(node.name, node.args, node.body, [], None)
    return node


def _is_dataclass(node: ast.ClassDef) -> bool:
    return any("dataclass" in ast.unparse(mark) for mark in node.decorator_list)


def _imported(node: ast.Import | ast.ImportFrom, name: str) -> str:
    return next(alias.name for alias in node.names if (alias.asname or alias.name) == name)


def _placeholder(module: str, node: ast.ClassDef) -> type:
    """Return a class of a name that nothing can be an instance of."""
    members = {"__module__": __name__, "__doc__": ast.get_docstring(node), "_": abstractmethod(lambda self: None)}
    made = ABCMeta(node.name, (), members)
    setattr(made, KNOWN, subclasses(module, node.name))
    return made
