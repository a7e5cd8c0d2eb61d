"""The corpus `AnarchistFAQ`: a long English text from Debian."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lit_core.corpora.base import Document
from lit_core.corpora.debian import DebianCorpus
from lit_core.files.text_files import read_text

#: What may be a link: from a bracket to the one that closes it, and the address, which is None where it is no link.
_LINK = re.compile(r"!?\[([^\]]*)(\]\((?:[^()]|\([^()]*\))*\))?")
_EMPHASIS = re.compile(r"\*\*|(?<!\w)_|_(?!\w)|\\(?=[-.*_#\[\]()+])")
_BLANKS = re.compile(r"(?<![ \t])[ \t]+$", re.MULTILINE)
_KNOWN = {"15.3-3": "cf21c10948b00e923c62eb31c39a3390413fa26c5ee0e3b925feb0ec7fe42948"}


class AnarchistFAQ(DebianCorpus):
    """An Anarchist FAQ, 11 MB of English political essays, the largest running prose that Debian packages.

    A document is a chapter or an appendix; lists of links, news and the bibliography are left out. Marks of emphasis
    and the targets of links are removed, headings and quotations stay marked as in Markdown.

    Args:
        from_folder: Folder in which dpkg-deb -x unpacked the package anarchism; None fetches it with apt.
    """

    package = "anarchism"
    known = _KNOWN
    name = "anarchism"
    licence = "GPL-2.0-or-later"
    language = "en"

    def documents(self) -> Iterator[Document]:
        """Yield chapters and appendices in the order of their names.

        Raises:
            UserError: If the package cannot be fetched or is not in the folder.
        """
        for path in self.files("usr/share/doc/anarchism/markdown", "*.md*"):
            name = path.name.removesuffix(".gz").removesuffix(".md")
            if not name.startswith(("sec", "append")):
                continue
            text = _LINK.sub(lambda link: link[1] if link[2] else link[0], read_text(path))
            text = _BLANKS.sub("", _EMPHASIS.sub("", text))
            yield Document(name, re.sub(r"\n{3,}", "\n\n", text).strip() + "\n")
