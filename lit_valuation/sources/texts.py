"""Labelled texts in the user's own JSONL, CSV or Parquet files, as embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lit_core.errors import UserError
from lit_core.files.paths import files_facts
from lit_core.screen import say
from lit_valuation.encoders import Encoder, embed
from lit_valuation.samples import Samples
from lit_valuation.sources.base import LabelledSource, label_of, name_of
from lit_valuation.sources.rows import cell_of, table_path, table_rows
from lit_valuation.sources.targets import TargetColumns


class Texts(LabelledSource):
    """Texts of a JSONL, CSV or Parquet file, which an encoder turns into embeddings. A line or row is a sample.

    All parties of an exchange must name the same encoder.

    Args:
        path: Path of a .jsonl, .csv or .parquet file.
        encoder: Encoder of texts, by class name, such as MiniLM.
        name: Name of the source; None takes that of the file.
        text: Column or key of the texts.
        label: Column or key of the classes. In JSONL it may hold lists, the labels of each row by name.
        labels: Columns or keys of 0 and 1, one per label, in place of classes; None if there are none.
        values: Columns or keys of numbers that are to be predicted, in place of classes; None if there are none.
        group: Column or key of the groups; None if there are no groups.
        licence: Licence of the texts, for the record.

    Raises:
        UserError: If the file does not exist or has another suffix.
    """

    input = "embedding"

    def __init__(
        self,
        path: str,
        encoder: Encoder,
        name: str | None = None,
        text: str = "text",
        label: str = "label",
        labels: list[str] | None = None,
        values: list[str] | None = None,
        group: str | None = None,
        licence: str = "unknown",
    ) -> None:
        self.name = name_of(name, Path(path).expanduser())
        self.path = table_path(path, self.name)
        self.licence, self.origin = licence, "a file of texts"
        self.targets = TargetColumns(label, labels, values)
        self.targets.check_inputs([text])
        self.encoder, self.text, self.group = encoder, text, group

    def samples(self) -> Samples:
        """Return the texts as embeddings, in order.

        Raises:
            UserError: If a line lacks a key, or its text is empty or not a text. The message names the line.
        """
        columns = [self.text, *self.targets.columns, *([self.group] if self.group else [])]
        texts, labels, groups, places = [], [], [], []
        for where, row in table_rows(self.path, columns=columns):
            text = cell_of(row, self.text, where)
            if not isinstance(text, str) or not text.strip():
                raise UserError(f"{where}: {self.text} is {text!r}, but must be a text; fill it or remove the row.")
            texts.append(text)
            labels.append(self.targets.read(row, where))
            if self.group:
                groups.append(label_of(cell_of(row, self.group, where), f"{where}, {self.group}"))
            places.append(where.removeprefix(f"{self.path}, "))
        if not texts:
            raise UserError(f"{self.path} has no rows; add some.")
        say(f"Encoding {len(texts):,} texts.")
        self.places = tuple(places)
        return self.targets.samples(self.name, embed(self.encoder, texts), labels, groups or None)

    def facts(self) -> dict[str, Any]:
        """Return the arguments, the encoder's name and hash, and the name, size and modification time of the file."""
        given = {"text": self.text, "label": self.targets.label, "group": self.group, **self.targets.facts()}
        given |= {"encoder": self.encoder.name, "encoder_sha256": self.encoder.sha256}
        return {**given, **files_facts([self.path])}
