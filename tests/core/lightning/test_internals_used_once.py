"""No module but `lit_core.lightning.internals` may use a private name of Lightning.

Found by reading the sources: ours, and those of the installed Lightning, which say what its private names are.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import lightning

ROOT = Path(__file__).parents[3]
INTERNALS = ROOT / "lit_core" / "lightning" / "internals.py"
OURS = sorted(
    file
    for folder in (*ROOT.glob("lit_*"), ROOT / "examples", ROOT / "benchmarks", ROOT / "tools")
    for file in folder.rglob("*.py")
)


@dataclass(frozen=True)
class Names:
    """Private names that some sources define.

    Args:
        of_classes: Attributes and methods by module and qualified class name.
        anywhere: Those of all classes and modules.
        strings: Text constants that look like private names, such as keys of a mapping.
    """

    of_classes: dict[tuple[str, str], frozenset[str]]
    anywhere: frozenset[str]
    strings: frozenset[str]


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name.strip("_") != "" and name.isidentifier()


def defined(node: ast.AST) -> set[str]:
    """Return the private names that a class or a module defines, ``self._x = ...`` of its methods included."""
    names = set()
    for part in ast.walk(node):
        if isinstance(part, ast.FunctionDef | ast.ClassDef):
            names.add(part.name)
        elif isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
            names.add(part.id)
        elif isinstance(part, ast.Attribute) and isinstance(part.ctx, ast.Store) and of_self(part):
            names.add(part.attr)
    return {name for name in names if is_private(name)}


def of_self(node: ast.Attribute) -> bool:
    base = node.value
    called = isinstance(base, ast.Call) and isinstance(base.func, ast.Name) and base.func.id == "super"
    return called or (isinstance(base, ast.Name) and base.id in ("self", "cls"))


def strings(tree: ast.AST) -> set[str]:
    constants = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    return {text for text in constants if isinstance(text, str) and is_private(text)}


def classes(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.ClassDef]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield prefix + node.name, node
            yield from classes(node, f"{prefix}{node.name}.")
        elif not isinstance(node, ast.expr):
            yield from classes(node, prefix)


def names_of(files: dict[str, ast.Module]) -> Names:
    return Names(
        {(module, name): frozenset(defined(node)) for module, tree in files.items() for name, node in classes(tree)},
        frozenset().union(*map(defined, files.values())),
        frozenset().union(*map(strings, files.values())),
    )


def module_of(file: Path, root: Path) -> str:
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def of_lightning() -> Names:
    folder = Path(lightning.__file__).parent
    return names_of({module_of(file, folder.parent): ast.parse(file.read_bytes()) for file in folder.rglob("*.py")})


def lineage(file: Path, name: str) -> list[type]:
    """Return a class of ours and its bases; none of a script, which is not to be run."""
    if not file.relative_to(ROOT).parts[0].startswith("lit_"):
        return []
    found = importlib.import_module(module_of(file, ROOT))
    for part in name.split("."):
        found = getattr(found, part, None)
    return list(found.__mro__) if isinstance(found, type) else []


def from_lightning(lineage: list[type]) -> set[str]:
    """Return the private names that the bases of a class have from Lightning."""
    known = of_lightning().of_classes
    return set().union(*(known.get((base.__module__, base.__qualname__), frozenset()) for base in lineage))


@cache
def of_ours() -> Names:
    return names_of({module_of(file, ROOT): tree_of(file) for file in OURS})


@cache
def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_bytes())


def own(lineage: list[type]) -> set[str]:
    known = of_ours().of_classes
    return set().union(*(known.get((base.__module__, base.__qualname__), frozenset()) for base in lineage))


def private_uses(file: Path, tree: ast.Module) -> list[str]:
    """Return the uses of Lightning's private names in a source, as ``line: use``."""
    private, mine = of_lightning(), defined(tree)
    uses: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            origin = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            paths = [f"{origin}.{alias.name}".strip(".").split(".") for alias in node.names]
            uses += [(node.lineno, ".".join(p)) for p in paths if p[0] == "lightning" and any(map(is_private, p))]
        elif isinstance(node, ast.Constant) and node.value in private.strings:
            uses.append((node.lineno, repr(node.value)))
        elif isinstance(node, ast.Attribute) and node.attr in private.anywhere and not of_self(node):
            if node.attr not in mine:
                uses.append((node.lineno, ast.unparse(node)))
    for name, node in classes(tree):
        bases = lineage(file, name)
        inherited, mine = from_lightning(bases), defined(node) | own(bases)
        for part in ast.walk(node):
            if isinstance(part, ast.Attribute) and of_self(part):
                if part.attr in inherited or (part.attr in private.anywhere and part.attr not in mine):
                    uses.append((part.lineno, ast.unparse(part)))
            elif isinstance(part, ast.FunctionDef) and part.name in inherited:
                uses.append((part.lineno, f"def {part.name}"))
    return [f"{line}: {use}" for line, use in sorted(set(uses))]


def test_no_module_uses_a_private_name_of_lightning() -> None:
    """One test for all modules: each process that has a part of them would read all of Lightning."""
    uses = [
        f"{file.relative_to(ROOT)}:{use}"
        for file in OURS
        if file != INTERNALS
        for use in private_uses(file, tree_of(file))
    ]
    assert not uses, (
        f"Private names of Lightning are used: {'; '.join(uses)}. "
        "Use a public name, or add a function to lit_core/lightning/internals.py and pin the name in its test."
    )
