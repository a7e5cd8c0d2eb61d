"""The corpus `DebianHandbook`: one book in many languages, for a shift of language with the topic fixed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Literal

from lit_core.corpora.base import Document
from lit_core.corpora.debian import DebianCorpus

Language = Literal["en", "de", "fr", "es", "it", "pt", "ru", "nl", "pl", "ja"]
_FOLDERS = {
    "en": "en-US",
    "de": "de-DE",
    "fr": "fr-FR",
    "es": "es-ES",
    "it": "it-IT",
    "pt": "pt-BR",
    "ru": "ru-RU",
    "nl": "nl-NL",
    "pl": "pl-PL",
    "ja": "ja-JP",
}
_HTML = "usr/share/doc/debian-handbook/html"
_KNOWN = {"11.20220922": "3d5dbeac1f1afc9c094eab9d0f701f6ecff99c4927d5a4794cf6c85678134faa"}


class DebianHandbook(DebianCorpus):
    """The Debian Administrator's Handbook, about 1 MB of technical prose per language; a document is a section.

    The languages are translations of one text, in documents of equal names. Paragraphs that a translation still has in
    English are left out of it; commands and their output stay.

    Args:
        language: Language of the edition.
        from_folder: Folder in which dpkg-deb -x unpacked debian-handbook; None fetches it with apt.
    """

    package = "debian-handbook"
    known = _KNOWN
    licence = "GPL-2.0-or-later OR CC-BY-SA-3.0"

    def __init__(self, language: Language = "en", from_folder: str | None = None) -> None:
        self.language = language
        self.name = f"handbook_{language}"
        super().__init__(from_folder)

    def documents(self) -> Iterator[Document]:
        """Yield the sections in the order of their names.

        Raises:
            UserError: If the package cannot be fetched or is not in the folder.
        """
        for path in self.files(f"{_HTML}/{_FOLDERS[self.language]}", "*.html"):
            if path.stem == "index":  # the table of contents
                continue
            english: set[str] = set()
            if self.language != "en":
                twin = path.parent.parent / "en-US" / path.name
                english = set(html_paragraphs(twin)) if twin.is_file() else set()
            translated = [text for text in html_paragraphs(path) if text not in english or "\n" in text]
            yield Document(path.stem, "\n\n".join(translated) + "\n")

    def facts(self) -> dict[str, Any]:
        """Return the language, and the facts about the package."""
        return {"language": self.language, **super().facts()}


def html_paragraphs(path: Path) -> list[str]:
    """Return the text of an HTML page: a paragraph, heading, list item or literal block each, without navigation."""
    reader = _Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    reader.end_paragraph()
    return reader.paragraphs


class _Reader(HTMLParser):
    """Collects paragraphs."""

    BLOCKS = frozenset("p div h1 h2 h3 h4 h5 h6 ul ol li dl dt dd table tr td th pre blockquote body hr".split())
    SKIPPED = frozenset(["head", "script", "style"])
    #: Classes of elements around the text: navigation, tables of contents, index marks.
    FURNITURE = frozenset(["docnav", "toc", "indexterm"])
    VOID = frozenset(["br", "hr", "img", "link", "meta", "input", "col"])

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.paragraphs: list[str] = []
        self.words: list[str] = []
        self.skipping = 0
        self.literal = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self.VOID:
            if tag == "br":
                self.words.append("\n" if self.literal else " ")
            return
        named = dict(attrs)
        furniture = self.FURNITURE.intersection((named.get("class") or "").split())
        furniture_id = named.get("id") == "banner" or (tag == "p" and named.get("id") == "title")
        if self.skipping or tag in self.SKIPPED or furniture or furniture_id:
            self.skipping += 1
        if tag in self.BLOCKS:
            self.end_paragraph()
        self.literal += tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        if tag in self.VOID:
            return
        if tag in self.BLOCKS:
            self.end_paragraph()
        self.literal -= tag == "pre"
        self.skipping -= bool(self.skipping)

    def handle_data(self, data: str) -> None:
        if not self.skipping:
            self.words.append(data)

    def end_paragraph(self) -> None:
        text = "".join(self.words)
        text = text.strip("\n").rstrip() if self.literal else re.sub(r"\s+", " ", text).strip()
        if text:
            self.paragraphs.append(text)
        self.words = []
