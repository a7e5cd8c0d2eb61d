"""The corpus `GermanManPages`: German manual pages from Debian."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lit_core.corpora.base import Document
from lit_core.corpora.debian import DebianCorpus
from lit_core.corpora.roff import roff_to_text
from lit_core.files.text_files import read_text

#: The last section of every page says who translated it, in the same words.
_TRANSLATORS = re.compile(r"\n\nÜBERSETZUNG\n.*", re.DOTALL)
_KNOWN = {"4.18.1-1": "37d2e7ee51f22952aecec3af93647ff59194a3c74bb7a694560f49c7f7ab3978"}


class GermanManPages(DebianCorpus):
    """The German manual pages, 7 MB of technical prose; a document is a page.

    Pages are reduced to plain text. Left out are the translators' notes, which are the same in every page, and the 3 %
    of pages that are written with other macros or only refer to another page.

    Args:
        from_folder: Folder in which dpkg-deb -x unpacked manpages-de; None fetches it with apt.
    """

    package = "manpages-de"
    known = _KNOWN
    name = "manpages_de"
    licence = "GPL-3.0-or-later and others, by page"
    language = "de"

    def documents(self) -> Iterator[Document]:
        """Yield the pages in the order of their names.

        Raises:
            UserError: If the package cannot be fetched or is not in the folder.
        """
        for path in self.files("usr/share/man/de", "man*/*.gz"):
            text = roff_to_text(read_text(path))
            text = _TRANSLATORS.sub("\n", text)
            if text:
                yield Document(path.name.removesuffix(".gz"), text)
