"""The corpus `Austen`: English novels, shipped with the package."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lit_core.corpora.base import Corpus, Document
from lit_core.files.json_files import parse_json
from lit_core.files.shipped import read_shipped

_FILE = Path(__file__).parent / "embedded" / "austen.jsonl.xz"
#: Of the decompressed file.
SHA256 = "93858f049307ad788122ca9b8f4325268244bc7525fb44732784fd50cf8d3b87"


class Austen(Corpus):
    """Six novels of Jane Austen, 4.0 MB of English prose in 269 chapters, shipped with the package.

    A document is a chapter, and every novel has chapters in each split. See ``embedded/PROVENANCE.md``.
    """

    name = "austen"
    licence = "public domain"
    origin = "Debian r-cran-janeaustenr 1.0.0, shipped with lit-shift"
    language = "en"

    def documents(self) -> Iterator[Document]:
        """Yield the chapters, grouped by novel.

        Raises:
            RunFailure: If the shipped file is damaged.
        """
        for line in read_shipped(_FILE, SHA256).splitlines():
            chapter = parse_json(line, str(_FILE))
            yield Document(chapter["id"], chapter["text"], group=chapter["id"].split("/")[0])

    def facts(self) -> dict[str, Any]:
        """Return the SHA-256 of the text."""
        return {"sha256": SHA256}
