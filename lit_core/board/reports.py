"""Reports of studies and detectors, which are Markdown of ours, as parts of a page."""

from __future__ import annotations

import base64
import os
import re
from pathlib import Path
from typing import Any

from lit_core.board.runs import PNG
from lit_core.files.text_files import read_text, read_whole
from lit_core.screen import on_screen

#: Name of a report in the folder of a study.
REPORT = "report.md"
#: A picture of ours, alone on its line, in or below the folder of the report.
_PICTURE = re.compile(r"!\[(.*)\]\(((?:[\w.+-]+/)*[\w.+-]+\.png)\)")
#: What a report of others could load or run.
_MARKUP = ("html", "link", "image_link", "image_reference", "short_image_ref", "reference", "short_reference")
#: What begins a character that a report of ours does not write so.
_ENTITY = re.compile("&(?!(lt|gt|amp);)")
_END = "\n"


def is_report(folder: Path) -> bool:
    """Tell whether a folder holds a report."""
    return (folder / REPORT).is_file()


def report_parts(folder: Path) -> list[dict[str, Any]]:
    """Return the text of a report as HTML of ours, and its pictures, in their order.

    Args:
        folder: The folder of the report.

    Raises:
        UserError: If the report cannot be read.
    """
    from markdown import Markdown
    from markupsafe import Markup

    reader = Markdown(extensions=["tables"], output_format="html")
    reader.preprocessors.deregister("html_block")
    for pattern in (*_MARKUP, "autolink", "automail"):
        reader.inlinePatterns.deregister(pattern)
    parts: list[dict[str, Any]] = []
    lines: list[str] = []
    for line in [*read_text(folder / REPORT).split("\n"), _END]:
        found = _PICTURE.fullmatch(line)
        image = b"" if found is None else _picture(folder, found[2])
        if line is _END or image:
            text = reader.reset().convert("\n".join(lines))
            parts.append({"text": Markup(text.replace("<table>", '<table class="numbers">')), "picture": ""})
            lines = []
        if found and image:
            parts.append({"picture": base64.b64encode(image).decode(), "title": found[1]})
        else:
            lines.append(_ENTITY.sub("&amp;", on_screen(line)))
    return parts


def _picture(folder: Path, name: str) -> bytes:
    """Return a picture below a folder; nothing where there is none."""
    path = (folder / name).resolve()
    content = read_whole(path) if os.path.isfile(path) and path.is_relative_to(folder.resolve()) else b""
    return content if content.startswith(PNG) else b""
