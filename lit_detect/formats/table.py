"""The user's own tables of texts: CSV, TSV, JSONL or Parquet with columns of any name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lit_core.errors import UserError
from lit_core.files.text_files import with_compressions
from lit_detect.formats.base import RowSource, Split, files_of, located, stem
from lit_detect.formats.reading import KINDS, as_label, as_split, cell, is_on_hub, text_cell
from lit_detect.records import HUMAN, HUMAN_SOURCE, MACHINE, Record


class TextTable(RowSource):
    """A table of texts with columns of any name: JSONL, Parquet, or CSV and TSV with a header line; also that of IMGTB.

    Files with both classes, with human texts only, and with machine texts only can be given together as one source.

    Args:
        name: Name of the source.
        path: A file with both classes, or a folder of such files: .csv, .tsv or .jsonl, perhaps compressed (.gz, .zst),
            or .parquet; or a data set of the Hugging Face hub, as in hf:NAME:SPLIT.
        human_path: A file of human texts only, or a folder of such files; the label column is not read.
        machine_path: A file of machine texts only, or a folder of such files; the label column is not read.
        text_column: Column or key of the text.
        label_column: Column or key of the label.
        human_values: Labels that mean human; None takes the usual words and 0, or all labels not in machine_values.
        machine_values: Labels that mean machine; None takes the usual words and 1, or all labels not in human_values.
        id_column: Column of the text's id; None numbers the texts.
        split_column: Column of the split (train, val or test); None lets prepare divide the texts.
        generator_column: Column of the generator's name; None names it machine.
        domain_column: Column of the domain, such as news; None has no domains.
        pair_column: Column of an id that texts of the same pair or document share; None treats each text as unrelated.
        attack_column: Column of the attack's name; None has no attacks.
        split: Split of all texts; None takes split_column.
        licence: Licence of the texts, which is recorded.

    Raises:
        UserError: If a file does not exist, or has another suffix.
    """

    suffixes = (*with_compressions(".csv", ".tsv", ".jsonl"), ".parquet")

    def __init__(
        self,
        name: str,
        path: str | None = None,
        human_path: str | None = None,
        machine_path: str | None = None,
        text_column: str = "text",
        label_column: str = "label",
        human_values: list[str] | None = None,
        machine_values: list[str] | None = None,
        id_column: str | None = None,
        split_column: str | None = None,
        generator_column: str | None = None,
        domain_column: str | None = None,
        pair_column: str | None = None,
        attack_column: str | None = None,
        split: Split | None = None,
        licence: str = "unknown",
    ) -> None:
        self.text_column, self.label_column = text_column, label_column
        self.optional = {
            "id": id_column,
            "split": split_column,
            "source": generator_column,
            "domain": domain_column,
            "pair_id": pair_column,
            "attack": attack_column,
        }
        self.human_values = None if human_values is None else {_word(value) for value in human_values}
        self.machine_values = None if machine_values is None else {_word(value) for value in machine_values}
        both = (self.human_values or set()) & (self.machine_values or set())
        if both:
            raise UserError(f"{min(both)!r} is in both human_values and machine_values of {name}. Remove it from one.")
        paths = [given for given in (path, human_path, machine_path) if given is not None]
        if not paths:
            raise UserError(f"path of the source {name} is missing. Give path, or human_path and machine_path.")
        super().__init__(
            paths,
            name,
            split,
            licence,
            text=text_column,
            label=label_column,
            human_values=human_values,
            machine_values=machine_values,
            columns=self.optional,
        )
        self._labels = {
            file: label
            for given, label in ((human_path, HUMAN), (machine_path, MACHINE))
            if given is not None
            for file in files_of(located(given), self.suffixes, f"path of the source {name}")
        }
        for file in self.files:
            if not is_on_hub(file) and not file.name.lower().endswith(self.suffixes):
                raise UserError(f"{file} of the source {name} must end in {', '.join(KINDS)}. Convert it.")

    def columns(self, file: Path) -> list[str] | None:
        """Return the columns that are needed of a file."""
        label = [] if file in self._labels else [self.label_column]
        return [self.text_column, *label, *filter(None, self.optional.values())]

    def records_of_row(self, row: dict[str, Any], where: str, number: int, file: Path) -> Iterator[Record]:
        """Yield the text of a row; see the base class."""
        label = self._labels.get(file)
        if label is None:
            label = self._label(cell(row, self.label_column, where), where)
        names = {key: "" if name is None else _name(row, name, where) for key, name in self.optional.items()}
        yield Record(
            id=names["id"] or f"{stem(file)}-{number:07d}",
            text=text_cell(row, self.text_column, where),
            label=label,
            split=as_split(names["split"], where),
            source=HUMAN_SOURCE if label == HUMAN else names["source"] or "machine",
            domain=names["domain"],
            pair_id=names["pair_id"],
            attack=names["attack"],
        )

    def _label(self, value: Any, where: str) -> int:
        if self.human_values is None and self.machine_values is None:
            return as_label(value, where)
        word = _word(value)
        if self.human_values is not None and word in self.human_values:
            return HUMAN
        if self.machine_values is not None and word in self.machine_values:
            return MACHINE
        if self.human_values is not None and self.machine_values is not None:
            known = ", ".join(sorted(self.human_values | self.machine_values))
            raise UserError(f"{where} has the label {value!r}, which is not among {known}. Fix it or add it to them.")
        return HUMAN if self.human_values is None else MACHINE


def _word(value: Any) -> str:
    return str(value).strip().lower()


def _name(row: dict[str, Any], column: str, where: str) -> str:
    value = cell(row, column, where)
    return "" if value is None else str(value)
