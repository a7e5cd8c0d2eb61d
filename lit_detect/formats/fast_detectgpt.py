"""The format of Fast-DetectGPT (Bao et al., ICLR 2024, arXiv 2310.05130)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lit_core.errors import UserError
from lit_detect.formats.base import RowSource, Split
from lit_detect.formats.reading import as_text, json_document, name_cell
from lit_detect.records import HUMAN, HUMAN_SOURCE, MACHINE, Record

#: Human texts of a data set whose beginnings of so many characters are equal are cuts of one text.
_SAME = 60
#: The truncations of its data builder: the switch, and the name of the value.
_DECODING = (("do_top_k", "top_k"), ("do_top_p", "top_p"), ("do_temperature", "temperature"))


class FastDetectGPTJSON(RowSource):
    """A JSON document with lists ``original`` (human) and ``sampled`` (machine) of equal length, paired by index.

    Decoding, generator and data set are read from the file ``….args.json`` in the same folder. Without it, generator
    and data set are those of the file's name, ``<data set>_<generator>.raw_data.json``. A file is read at once.

    The files of one data set share human texts, which its data builder cuts to the length of each machine text. Human
    texts that begin with the same 60 characters, and their machine texts, therefore share their ``pair_id`` in all
    files of the data set, so that no division separates them.

    Args:
        path: A file that ends in .raw_data.json, perhaps compressed as .gz or .xz, or a folder of them.
        name: Name of the source.
        split: Split of all texts; None lets prepare divide them.
        licence: Licence of the texts, which is recorded.

    Raises:
        UserError: If the path does not exist.
    """

    suffixes = (".raw_data.json", ".raw_data.json.gz", ".raw_data.json.xz")

    def __init__(
        self, path: str, name: str = "fast_detectgpt", split: Split | None = None, licence: str = "unknown"
    ) -> None:
        super().__init__([path], name, split, licence)

    def rows(self, file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield place, texts and settings of each pair of one file.

        Raises:
            UserError: If a list is missing, or the two lists differ in length.
        """
        document = json_document(file)
        for key in ("original", "sampled"):
            if not isinstance(document.get(key), list):
                raise UserError(f"{file} has no list {key!r}. Give a file with the lists original and sampled.")
        original, sampled = document["original"], document["sampled"]
        if len(original) != len(sampled):
            raise UserError(
                f"{file} has {len(original)} original but {len(sampled)} sampled texts, which must be pairs. Restore "
                "the file."
            )
        settings = self._settings(file.with_name(f"{_base(file)}.args.json"))
        for index, (human, machine) in enumerate(zip(original, sampled, strict=True)):
            yield f"{file}, pair {index}", {"original": human, "sampled": machine, "settings": settings}

    def records_of_row(self, row: dict[str, Any], where: str, number: int, file: Path) -> Iterator[Record]:
        """Yield the human text and the machine text of a pair; see the base class."""
        base, settings = _base(file), row["settings"]
        named_data, _, named_model = base.partition("_")
        model = name_cell(settings, "openai_model") or name_cell(settings, "base_model_name", named_model or "machine")
        decoding = {key: settings[key] for switch, key in _DECODING if settings.get(switch) and key in settings}
        decoding |= {"seed": settings["seed"]} if "seed" in settings else {}
        data = name_cell(settings, "dataset", named_data)
        beginning = " ".join(as_text(row["original"], f"{where}, original").split())[:_SAME]
        group = hashlib.sha256(beginning.encode()).hexdigest()[:16]
        for kind, label, source in (("original", HUMAN, HUMAN_SOURCE), ("sampled", MACHINE, model)):
            yield Record(
                id=f"{base}-{kind}-{number - 1:07d}",
                text=as_text(row[kind], f"{where}, {kind}"),
                label=label,
                source=source,
                domain=data,
                pair_id=f"{data}-{group}",
                decoding={} if label == HUMAN else decoding,
            )

    @staticmethod
    def _settings(file: Path) -> dict[str, Any]:
        return json_document(file) if file.is_file() else {}


def _base(file: Path) -> str:
    return file.name.partition(".raw_data")[0]
