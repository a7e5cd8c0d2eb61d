"""The only reader of .docx and .pdf documents, of which each is one text."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from lightning_utilities.core.imports import RequirementCache

from lit_core.errors import UserError
from lit_core.files.text_files import LARGEST, read_text, refuse_other_kinds

#: Most bytes of a part of a .docx with text, which takes ten times that in memory, most parts, and most pages of a PDF.
_LARGEST_PART, _MOST_PARTS, _MOST_PAGES = 1 << 26, 10_000, 10_000
_OLE = b"\xd0\xcf\x11\xe0"
_HYPHENATED = re.compile(r"(?<=\w)[-\u00ad]\n(?=[^\W\d_A-Z])")

#: Ends of the names of documents.
DOCUMENTS = (".docx", ".pdf", ".txt")


def read_document(path: Path) -> str:
    """Return the text of a document: of a .docx all paragraphs, those of tables too, of a .pdf its pages.

    A .docx gives no headers, footers, notes or deleted words. The lines of a page of a PDF are joined to running text.

    Args:
        path: A .docx, .pdf or .txt.

    Raises:
        UserError: If a library is missing, or the document is damaged, encrypted, too large or without text.
    """
    kind = path.suffix.lower()
    if kind == ".txt":
        refuse_other_kinds(path)
        return read_text(path)
    name = {".docx": "python-docx>=1.1", ".pdf": "pypdf>=6.10"}[kind]
    if not RequirementCache(name):
        raise UserError(
            f'{path} needs `{name.partition(">")[0]}`; install it with `pip install "lit-shift[documents]"`.'
        )
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise UserError(f"{path} has {size:,} bytes, but at most {LARGEST >> 20} MiB are read; divide it.")
        text = _text_of_docx(path) if kind == ".docx" else _text_of_pdf(path)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error}); correct the path.") from error
    except Exception as error:  # of a damaged document the libraries raise almost anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(f"{path} is not a complete {kind} ({reason}); restore it or save it again.") from error
    if not text.strip():
        remedy = "have its pages recognised (OCR) and save them as text" if kind == ".pdf" else "save it as text"
        raise UserError(f"{path} holds no text, but perhaps pictures of it; {remedy}.")
    if len(text) > LARGEST:
        raise UserError(f"{path} holds more than {LARGEST >> 20} million characters; divide it.")
    return text


def _text_of_docx(path: Path) -> str:
    from docx import Document

    with path.open("rb") as file:
        if file.read(4) == _OLE:
            raise UserError(f"{path} is encrypted or an old .doc; save it as .docx without a password.")
    _check_parts(path)
    document: Any = Document(str(path))
    return "\n".join(_paragraphs(document.element.body))


def _check_parts(path: Path) -> None:
    """Refuse an archive that would take far more memory than a document; what it says of a part bounds what is read."""
    with ZipFile(path) as archive:
        parts = archive.infolist()
    texts = [part.file_size for part in parts if part.filename.lower().endswith((".xml", ".rels"))]
    whole = sum(part.file_size for part in parts)
    if len(parts) > _MOST_PARTS or sum(texts) > _LARGEST_PART or whole > LARGEST:
        raise UserError(
            f"{path} has {len(parts):,} parts that stand for {whole:,} bytes, too many for a document; restore it, or "
            "save its text alone."
        )


def _paragraphs(body: Any) -> Iterator[str]:
    """Yield the text of each paragraph in the order of the document; text boxes follow the paragraph they stand in."""
    word = f"{{{body.nsmap['w']}}}"
    breaks = {f"{word}tab": "\t", f"{word}br": "\n", f"{word}cr": "\n", f"{word}noBreakHyphen": "-"}
    left_out = {f"{word}moveFrom", "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"}

    def is_in(paragraph: Any, node: Any) -> bool:
        above = iter(node.iterancestors())
        is_text = next(above).tag == f"{word}r"  # and no stop of tabs
        outer = next(one for one in above if one.tag in left_out or one.tag == f"{word}p")
        return is_text and outer is paragraph

    for paragraph in body.iter(f"{word}p"):
        if not any(outer.tag in left_out for outer in paragraph.iterancestors()):
            nodes = [node for node in paragraph.iter(f"{word}t", *breaks) if is_in(paragraph, node)]
            yield "".join(breaks.get(node.tag) or node.text or "" for node in nodes)


def _text_of_pdf(path: Path) -> str:
    from pypdf import PasswordType, PdfReader

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # what it mends is not for the user
    with PdfReader(path) as reader:
        if reader.is_encrypted and not _opens(reader, PasswordType.NOT_DECRYPTED):
            raise UserError(f"{path} is encrypted; save it without a password.")
        if len(reader.pages) > _MOST_PAGES:
            raise UserError(f"{path} has more than {_MOST_PAGES:,} pages; divide it.")
        pages, size = [], 0
        for page in reader.pages:
            pages.append(_running(page.extract_text()))
            size += len(pages[-1])
            if size > LARGEST:
                break
        return "\n".join(page for page in pages if page)


def _opens(reader: Any, refused: Any) -> bool:
    """Tell whether a PDF opens without a password."""
    from pypdf.errors import DependencyError

    try:
        return bool(reader.decrypt("") != refused)
    except DependencyError:  # a cipher that needs a further library
        return False


def _running(page: str) -> str:
    """Return the lines of a page as running text: hyphens at their ends are removed, line breaks become blanks."""
    return " ".join(_HYPHENATED.sub("", page.replace("\r\n", "\n")).split())
