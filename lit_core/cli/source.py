"""What the sources of our modules say, read without importing them, and with them torch and Lightning."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

#: Beginning of the names of our packages.
OURS = "lit_"


@cache
def tree_of(module: str) -> ast.Module:
    """Return the syntax tree of a module or a package.

    Args:
        module: Its import path.
    """
    path = _folder(module)
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(path.read_text(encoding="utf-8"))


def function_in(module: str, name: str) -> ast.FunctionDef:
    """Return the definition of a function, also of one inside another.

    Args:
        module: Import path of the module.
        name: Name of the function.

    Raises:
        LookupError: If there is none.
    """
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return node
    raise LookupError(f"{module} has no function {name}.")


def method_in(module: str, owner: str, name: str) -> ast.FunctionDef:
    """Return the definition of a method of a class.

    Args:
        module: Import path of the module.
        owner: Name of the class.
        name: Name of the method.

    Raises:
        LookupError: If there is none.
    """
    for node in tree_of(module).body:
        for inner in node.body if isinstance(node, ast.ClassDef) and node.name == owner else ():
            if isinstance(inner, ast.FunctionDef) and inner.name == name:
                return inner
    raise LookupError(f"{module}.{owner} has no method {name}.")


def definition(module: str, name: str) -> tuple[str, ast.stmt] | None:
    """Return where a name of a module is defined: the module of ours, and the statement; an import if it is not ours.

    Args:
        module: Import path of the module.
        name: The name.
    """
    for node in _statements(tree_of(module)):
        if isinstance(node, ast.ImportFrom | ast.Import):
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(OURS):
                        return definition(node.module, alias.name)
                    return module, node
        elif isinstance(node, ast.ClassDef | ast.FunctionDef):
            if node.name == name:
                return module, node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(part, ast.Name) and part.id == name for one in targets for part in ast.walk(one)):
                return module, node
    return None


def subclasses(module: str, base: str) -> list[str]:
    """Return the import paths of a class and of what its room exports that derives from it, without abstract ones.

    Args:
        module: Import path of the module of the class.
        base: Name of the class.
    """
    room = module.rpartition(".")[0]
    found = [] if _abstract(list(_family(module, base))) else [f"{module}.{base}"]
    for name in _exported(room):
        family = list(_family(room, name))
        ours = [one.name for one in family]
        if base in ours[1:] and not _abstract(family):
            found.append(f"{room}.{name}")
    return found


def _exported(package: str) -> list[str]:
    found = definition(package, "__all__")
    names: list[str] = ast.literal_eval(found[1].value) if found and isinstance(found[1], ast.Assign) else []
    return names


def _family(module: str, name: str) -> Iterator[ast.ClassDef]:
    """Yield a class and those of ours that it derives from."""
    found = definition(module, name)
    if found is not None and isinstance(found[1], ast.ClassDef):
        yield found[1]
        for parent in found[1].bases:
            if isinstance(parent, ast.Name):
                yield from _family(found[0], parent.id)


def _abstract(family: list[ast.ClassDef]) -> set[str]:
    """Return the names of the abstract methods of a class that neither it nor a class between defines."""
    left: set[str] = set()
    for one in reversed(family):
        for node in one.body:
            if isinstance(node, ast.FunctionDef):
                marks = [mark.id for mark in node.decorator_list if isinstance(mark, ast.Name)]
                (left.add if "abstractmethod" in marks else left.discard)(node.name)
    return left


def _statements(tree: ast.Module) -> Iterator[ast.stmt]:
    """Yield the statements of a module, those for type checkers among them."""
    for node in tree.body:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            yield from node.body
        else:
            yield node


def _folder(module: str) -> Path:
    top, *parts = module.split(".")
    spec = find_spec(top)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent.joinpath(*parts)
