"""Writes small documents for tests."""

import re
import zlib


def write_docx(path, *paragraphs):
    """A .docx with some paragraphs."""
    from docx import Document

    document = Document()
    for paragraph in paragraphs:
        document.add_paragraph(paragraph)
    document.save(str(path))


def write_pdf(path, *lines, stream=None):
    """A PDF of one page with some lines of text in Latin letters, or with a compressed stream of commands."""
    shown = " T* ".join("({}) Tj".format(re.sub(r"([\\()])", r"\\\1", line)) for line in lines)
    commands = stream or zlib.compress(f"BT /F 12 Tf 14 TL 40 700 Td {shown} ET".encode("cp1252"))
    font = b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>"
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R/Resources<</Font<</F 5 0 R>>>>>>",
        b"<</Filter/FlateDecode/Length %d>>stream\n%s\nendstream" % (len(commands), commands),
        font,
    ]
    content, offsets = b"%PDF-1.4\n", []
    for number, each in enumerate(objects, 1):
        offsets.append(len(content))
        content += b"%d 0 obj\n%s\nendobj\n" % (number, each)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    end = b"trailer<</Size 6/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF\n" % len(content)
    path.write_bytes(content + b"xref\n0 6\n0000000000 65535 f \n" + table + end)
