"""The format of Fast-DetectGPT (Bao et al., ICLR 2024, arXiv 2310.05130)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lit_core.errors import UserError
from lit_detect.formats.base import FileSource, Split, stem
from lit_detect.formats.reading import as_text, json_document, name_cell
from lit_detect.records import HUMAN, HUMAN_SOURCE, MACHINE, Record

#: The truncations of its data builder: the switch, and the name of the value.
_DECODING = (("do_top_k", "top_k"), ("do_top_p", "top_p"), ("do_temperature", "temperature"))


class FastDetectGPTJSON(FileSource):
    """A JSON document with lists ``original`` (human) and ``sampled`` (machine) of equal length, paired by index.

    Decoding, generator and data set are read from the file ``….args.json`` in the same folder. Without it, generator
    and data set are those of the file's name, ``<data set>_<generator>.raw_data.json``. A file is read at once.

    Args:
        path: A file that ends in .raw_data.json, or a folder of them.
        name: Name of the source.
        split: Split of all texts; None lets prepare divide them.
        licence: Licence of the texts, which is recorded.

    Raises:
        UserError: If the path does not exist.
    """

    suffixes = (".raw_data.json",)

    def __init__(
        self, path: str, name: str = "fast_detectgpt", split: Split | None = None, licence: str = "unknown"
    ) -> None:
        super().__init__([path], name, split, licence)

    def records_of(self, file: Path) -> Iterator[Record]:
        """Yield the human text and the machine text of each pair of one file.

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
        base = stem(file).removesuffix(".raw_data")
        named_data, _, named_model = base.partition("_")
        settings = self._settings(file.with_name(f"{base}.args.json"))
        model = name_cell(settings, "openai_model") or name_cell(settings, "base_model_name", named_model or "machine")
        decoding = {key: settings[key] for switch, key in _DECODING if settings.get(switch) and key in settings}
        decoding |= {"seed": settings["seed"]} if "seed" in settings else {}
        for index, pair in enumerate(zip(original, sampled, strict=True)):
            for text, label, source in zip(pair, (HUMAN, MACHINE), (HUMAN_SOURCE, model), strict=True):
                kind = "original" if label == HUMAN else "sampled"
                yield Record(
                    id=f"{base}-{kind}-{index:07d}",
                    text=as_text(text, f"{file}, {kind} {index}"),
                    label=label,
                    source=source,
                    domain=name_cell(settings, "dataset", named_data),
                    pair_id=f"{base}-{index:07d}",
                    decoding={} if label == HUMAN else decoding,
                )

    @staticmethod
    def _settings(file: Path) -> dict[str, Any]:
        return json_document(file) if file.is_file() else {}
