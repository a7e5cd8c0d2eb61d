"""Imports: heavy libraries only where they are used, and no private name of another module."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("lit_core", "lit_detect", "lit_moe", "lit_valuation")
HEAVY = {"transformers", "webdataset", "matplotlib", "datasets", "tokenizers"}
HEAVY |= {"sklearn", "rdata", "pandas", "PIL", "pyarrow", "faiss", "spacy", "gguf", "peft"}


def imported_with_the_module(node):
    """Yield the names that a module imports when it is imported: not those inside functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield child.module or ""
        elif not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)) and not for_type_checkers(child):
            yield from imported_with_the_module(child)


def for_type_checkers(node):
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def test_no_module_imports_a_heavy_library_when_it_is_imported():
    heavy = {
        (str(path.relative_to(ROOT)), name)
        for path in modules()
        for name in imported_with_the_module(ast.parse(path.read_text()))
        if name.split(".")[0] in HEAVY
    }
    assert not heavy


def modules():
    """Return the files of all packages."""
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    assert len(files) > 120
    return files


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


def private_names_of_ours(tree):
    """Yield the underscore names that a module takes from another module of the packages."""
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            paths = [alias.name for alias in node.names if alias.name.split(".")[0] in PACKAGES]
            imported |= {alias.asname or alias.name.split(".")[0] for alias in node.names if alias.name in paths}
        elif isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").split(".")[0] in PACKAGES):
            paths = [f"{node.module or ''}.{alias.name}" for alias in node.names]
            imported |= {alias.asname or alias.name for alias in node.names}
        else:
            continue
        yield from (path for path in paths if any(map(is_private, path.split("."))))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            owner = ast.unparse(node.value)
            # a NamedTuple's own methods begin with an underscore and are public
            if owner.split(".")[0] in imported and node.attr not in ("_fields", "_asdict", "_replace", "_make"):
                yield f"{owner}.{node.attr}"


def test_no_module_uses_a_private_name_of_another_module():
    private = {
        (str(path.relative_to(ROOT)), name)
        for path in modules()
        for name in private_names_of_ours(ast.parse(path.read_text()))
    }
    assert not private
