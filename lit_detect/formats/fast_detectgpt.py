"""The format of Fast-DetectGPT (Bao et al., ICLR 2024, arXiv 2310.05130)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lit_core.errors import UserError
from lit_detect.formats.base import FileSource, Split, stem
from lit_detect.formats.reading import as_text, json_document, name_cell
from lit_detect.records import HUMAN, HUMAN_SOURCE, MACHINE, Record

#: The truncations of its data builder: switch, value, and what we call it.
_DECODING = (("do_top_k", "top_k"), ("do_top_p", "top_p"), ("do_temperature", "temperature"))


class FastDetectGPTJSON(FileSource):
    """A JSON document with the equally long lists ``original`` (human) and ``sampled`` (machine), paired by place.

    Decoding, generator and data set are those of the file ``….args.json`` beside it, or else the file's name,
    ``<data set>_<generator>.raw_data.json``. A file is read whole.

    Args:
        path: A file that ends in .raw_data.json, or a folder of them.
        name: Name of the source.
        split: Split of all texts; None lets prepare divide them.
        licence: Licence of the texts, for the record.

    Raises:
        UserError: If there is no such file.
    """

    suffixes = (".raw_data.json",)

    def __init__(
        self, path: str, name: str = "fast_detectgpt", split: Split | None = None, licence: str = "unknown"
    ) -> None:
        super().__init__([path], name, split, licence)

    def records_of(self, file: Path) -> Iterator[Record]:
        """Yield human text and machine text of each pair of one file.

        Raises:
            UserError: If a list is missing, or the two are not equally long.
        """
        document = json_document(file)
        for key in ("original", "sampled"):
            if not isinstance(document.get(key), list):
                raise UserError(f"{file} has no list {key!r}; give a file with original and sampled.")
        original, sampled = document["original"], document["sampled"]
        if len(original) != len(sampled):
            raise UserError(
                f"{file} has {len(original)} original but {len(sampled)} sampled texts; they must be pairs."
            )
        base = stem(file).removesuffix(".raw_data")
        named_data, _, named_model = base.partition("_")
        settings = self._settings(file.with_name(f"{base}.args.json"))
        model = name_cell(settings, "openai_model") or name_cell(settings, "base_model_name", named_model or "machine")
        decoding = {key: settings[key] for switch, key in _DECODING if settings.get(switch) and key in settings}
        decoding |= {"seed": settings["seed"]} if "seed" in settings else {}
        for place, pair in enumerate(zip(original, sampled, strict=True)):
            for text, label, source in zip(pair, (HUMAN, MACHINE), (HUMAN_SOURCE, model), strict=True):
                kind = "original" if label == HUMAN else "sampled"
                yield Record(
                    id=f"{base}-{kind}-{place:07d}",
                    text=as_text(text, f"{file}, {kind} {place}"),
                    label=label,
                    source=source,
                    domain=name_cell(settings, "dataset", named_data),
                    pair_id=f"{base}-{place:07d}",
                    decoding={} if label == HUMAN else decoding,
                )

    @staticmethod
    def _settings(file: Path) -> dict[str, Any]:
        return json_document(file) if file.is_file() else {}
