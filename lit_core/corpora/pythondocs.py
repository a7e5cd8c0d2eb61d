"""The corpus `PythonDocs`: Python's English documentation, with code in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lit_core.corpora.base import Document
from lit_core.corpora.debian import DebianCorpus

_KNOWN = {
    "3.11": {"3.11.2-6+deb12u9": "5b3594189d6ef9a6963ce0347fd307a1cc67620ad697e144db366070e2e146be"},
}


class PythonDocs(DebianCorpus):
    """The documentation of Python, 11 MB of technical English and code in reStructuredText; a document is a page.

    Args:
        release: Release of Python whose documentation the system packages, such as 3.11 on Debian 12.
        from_folder: Folder in which dpkg-deb -x unpacked the package; None fetches it with apt.
    """

    name = "python_docs"
    licence = "PSF-2.0"
    language = "en"

    def __init__(self, release: str = "3.11", from_folder: str | None = None) -> None:
        self.release = release
        self.package = f"python{release}-doc"
        self.known: Mapping[str, str] = _KNOWN.get(release, {})
        super().__init__(from_folder)

    def documents(self) -> Iterator[Document]:
        """Yield the pages in the order of their names.

        Raises:
            UserError: If the package cannot be fetched or is not in the folder.
        """
        sources = f"usr/share/doc/python{self.release}/html/_sources"
        for path in self.files(sources, "**/*.txt"):
            name = path.as_posix().split("/_sources/")[1].removesuffix(".rst.txt")
            yield Document(name, path.read_text(encoding="utf-8"))
