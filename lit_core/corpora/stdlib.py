"""The corpus `PythonStdlib`: the Python code of the standard library, which every installation has."""

from __future__ import annotations

import os
import platform
import sysconfig
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lit_core.corpora.base import Corpus, Document

#: Folders that hold no library code: installed packages; tests; a Python 2 parser with its fixtures; the bundled pip;
#: and data in Python syntax: 120 character tables that are near copies of each other, and the text of the manual.
_SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idle_test", "lib2to3", "ensurepip", "__pycache__"} | {
    "encodings",
    "pydoc_data",
}


class PythonStdlib(Corpus):
    """The standard library of the running Python, about 10 MB of code; a document is a source file.

    Tests, installed packages and files of data in Python syntax are left out. The text depends on the Python version,
    which is recorded.
    """

    name = "stdlib"
    licence = "PSF-2.0"
    language = "python"

    def __init__(self) -> None:
        self.origin = f"Standard library of {platform.python_implementation()} {platform.python_version()}"
        self.folder = Path(sysconfig.get_paths()["stdlib"])

    def documents(self) -> Iterator[Document]:
        """Yield the source files in the order of their names."""
        for path in self._files():
            # Source files declare their encoding, which `tokenize.open` obeys; a file it cannot read is not Python.
            try:
                with tokenize.open(path) as file:
                    text = file.read()
            except (SyntaxError, UnicodeDecodeError):
                continue
            if text.strip():
                yield Document(path.relative_to(self.folder).as_posix(), text)

    def facts(self) -> dict[str, Any]:
        """Return the Python version, and the number and size of its files."""
        sizes = [path.stat().st_size for path in self._files()]
        return {"python": platform.python_version(), "files": len(sizes), "bytes": sum(sizes)}

    def _files(self) -> list[Path]:
        files = []
        for root, folders, names in os.walk(self.folder):
            top = Path(root) == self.folder
            # not walked: installed packages and tests hold many times as many files
            folders[:] = [name for name in folders if name not in _SKIPPED and not (top and name.startswith("config-"))]
            paths = [Path(root, name) for name in names if name.endswith(".py")]
            files += [path for path in paths if not path.name.startswith("_sysconfigdata") and path.is_file()]
        return sorted(files, key=lambda path: path.relative_to(self.folder).as_posix())
