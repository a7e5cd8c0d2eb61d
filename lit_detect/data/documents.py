"""Documents, each of which is one text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lit_core.errors import UserError
from lit_core.files.bad_rows import STOP, BadRows
from lit_core.files.documents import DOCUMENTS, read_document
from lit_core.files.listing import listed
from lit_detect.data.indexed_texts import IndexedTexts, file_state, unchanged
from lit_detect.formats.base import stem
from lit_detect.formats.reading import as_text
from lit_detect.records import Record


def document_files(folder: Path) -> list[Path]:
    """Return the documents of a folder, whose names end in .txt, .docx or .pdf in small or capital letters, by name.

    Raises:
        UserError: If there is a link that leads nowhere or out of the folder.
    """
    return [file for file in listed(folder) if file.suffix.lower() in DOCUMENTS and file.is_file()]


class Documents(IndexedTexts):
    """Files of which each is one text: .txt, .docx or .pdf. A row has ``file`` and ``text``.

    Args:
        files: The files.
        transform: Applied to the text of a sample; None leaves it as it was found.
        bad: What becomes of a file that cannot be read.

    Raises:
        UserError: If a file cannot be read and that ends the command.
    """

    def __init__(
        self, files: Sequence[Path], transform: Callable[[str], str] | None = None, bad: BadRows = STOP
    ) -> None:
        super().__init__(None, transform, bad, stem(files[0]) if len(files) == 1 else "")
        self.groups, self._stems = {""}, Counter(map(stem, files))
        self._states: list[tuple[int, int]] = []
        for file in files:
            state = file_state(file)
            try:
                document_text(file)
            except UserError as error:
                bad.add(str(file), error)
            else:
                self.files.append(file)
                self._states.append(state)

    def __len__(self) -> int:
        return len(self.files)

    def row(self, index: int) -> dict[str, Any]:
        """Read the name and the text of a file; see the base class."""
        file = self.files[index]
        with unchanged(file, self._states[index]):
            text = document_text(file)
        return {"file": file.name, "text": text}

    def record(self, index: int) -> Record:
        """Read a text, which is named after its file; see the base class."""
        file = self.files[index]
        name = stem(file) if self._stems[stem(file)] == 1 else file.name
        return Record(self.name or name, self.row(index)["text"])

    def where(self, index: int) -> str:
        """Return the path of the file."""
        return str(self.files[index])

    def text_and_group(self, index: int) -> tuple[str, str]:
        """Read the text; see the base class."""
        return self.row(index)["text"], ""


def document_text(file: Path) -> str:
    """Return the text of a document.

    Raises:
        UserError: If it cannot be read, or is too long for one text.
    """
    return as_text(read_document(file), str(file))
