"""The packages stay light: what only some users need is imported where it is used."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
HEAVY = {"transformers", "webdataset", "matplotlib", "datasets", "tokenizers"}
HEAVY |= {"sklearn", "rdata", "pandas", "PIL", "pyarrow", "faiss", "spacy", "gguf"}


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
    files = [
        path
        for package in ("lit_core", "lit_detect", "lit_moe", "lit_valuation")
        for path in (ROOT / package).rglob("*.py")
    ]
    assert len(files) > 120
    found = {
        (str(path.relative_to(ROOT)), name)
        for path in files
        for name in imported_with_the_module(ast.parse(path.read_text()))
        if name.split(".")[0] in HEAVY
    }
    assert not found
