"""The verb ``explain``: what a detector finds in one document, as a page for people."""

from __future__ import annotations

from functools import partial

from lit_core.errors import UserError
from lit_core.files.documents import DOCUMENTS
from lit_core.files.paths import atomic_write, data_root, resolve_data_path
from lit_core.progress import progress
from lit_core.record import note_input, output_with_record, write_record
from lit_core.screen import say


def explain(
    input: str,
    output: str = "page.html",
    detector: str = "default",
    calibration: str | None = None,
    group: str | None = None,
) -> None:
    """Write a page that shows what a detector finds in a document, and where.

    The page is one HTML file that loads nothing: decision, score and p-value in words, the windows that are flagged,
    each word coloured by how expected it was, and what the page cannot tell.

    Args:
        input: The document: a .txt, .docx or .pdf, which is one text.
        output: HTML file to write.
        detector: Name of the detector: default, the name of a shipped detector that needs no training, a checkpoint of
            ``lit-detect fit``, or the name or folder of a Hugging Face classifier.
        calibration: File of ``lit-detect calibrate`` by which it decides; null takes the detector's own threshold.
        group: Group of the document, where the calibration is by group; null for none.

    Raises:
        UserError: If there is no such document or detector, or the calibration is of another one.
    """
    page = output_with_record(output)
    path = resolve_data_path(input)
    if not path.is_file():
        raise UserError(f"input is {input}, but there is no such file, nor below {data_root()}; correct the path.")
    if path.suffix.lower() not in DOCUMENTS:
        raise UserError(f"input is {input}, but must be one document, {', '.join(DOCUMENTS)}; convert it.")

    from lit_detect.data.documents import document_text
    from lit_detect.loading import load
    from lit_detect.pages.page import page_of

    note_input(path)
    text, judge = document_text(path), load(detector, calibration)
    through = partial(progress, title=path.name, unit="batches", task=f"{judge.name} reads {path.name}")
    written = page_of(judge, text, path.name, group or "", through=through)
    write_record(page)
    atomic_write(page, written)
    say(f"Page         {page}")
