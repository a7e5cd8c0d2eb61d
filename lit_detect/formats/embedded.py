"""The shipped sets of human and machine texts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from lit_core.files.json_files import parse_json
from lit_core.files.shipped import read_shipped
from lit_detect.formats.base import TextSource
from lit_detect.formats.litshift import as_record
from lit_detect.records import Record

_FOLDER = Path(__file__).parent.parent / "embedded"
#: Of the decompressed files.
SHA256 = {
    "pairs.jsonl.xz": "0c53c861a4e18250ea60a224485a0c647ca8632d46dd208c307d86e043b84c88",
    "wild.jsonl.xz": "974a30e3c8e62bc24f7dc234f08d094f86114350611d5f7cfb6ed992f1184011",
}

Generator = Literal["fewer_layers", "continued", "scratch", "ngram"]


class EmbeddedPairs(TextSource):
    """The shipped pairs: passages of Jane Austen and the Debian Handbook, and SmolLM2's continuations of their starts.

    SmolLM2 wrote them by pure sampling at temperature 1. Splits are by chapter. See ``embedded/PROVENANCE.md``.
    """

    name = "embedded"
    licence = "public domain; handbook: GPL-2.0-or-later OR CC-BY-SA-3.0, see embedded/PROVENANCE.md"
    origin = "novels of Jane Austen, the Debian Administrator's Handbook, SmolLM2-135M-Instruct; shipped with lit-shift"

    def records(self) -> Iterator[Record]:
        """Yield the pairs; see `TextSource.records`.

        Raises:
            RunFailure: If the shipped file is damaged.
        """
        return _read("pairs.jsonl.xz")

    def facts(self) -> dict[str, Any]:
        """Return the SHA-256 of the records."""
        return {"sha256": SHA256["pairs.jsonl.xz"]}


class EmbeddedWild(TextSource):
    """The shipped set from the wild: test passages of the embedded set, and an unseen generator's continuations.

    Args:
        generator: The generator: fewer_layers is SmolLM2 without three layers, continued is SmolLM2 after training on
            other text, scratch is a small model trained from scratch, ngram is an n-gram model.
    """

    licence = EmbeddedPairs.licence
    origin = (
        "novels of Jane Austen, the Debian Administrator's Handbook, a generator of its own; shipped with lit-shift"
    )

    def __init__(self, generator: Generator) -> None:
        self.generator = generator
        self.name = f"wild_{generator}"

    def records(self) -> Iterator[Record]:
        """Yield the human passages and the generator's continuations; see `TextSource.records`.

        Raises:
            RunFailure: If the shipped file is damaged.
        """
        return (record for record in _read("wild.jsonl.xz") if record.meta["wild"] == self.generator)

    def facts(self) -> dict[str, Any]:
        """Return the generator and the SHA-256 of the records."""
        return {"generator": self.generator, "sha256": SHA256["wild.jsonl.xz"]}


def _read(name: str) -> Iterator[Record]:
    path = _FOLDER / name
    for number, line in enumerate(read_shipped(path, SHA256[name]).splitlines(), 1):
        yield as_record(parse_json(line, f"{path}, line {number}"), f"{path}, line {number}")
