"""Which texts a cell of the detection study is trained and tested on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from lit_core.study.parts import Part
from lit_detect.formats import TextSource
from lit_detect.records import HUMAN, MACHINE, Record, condition


class LabelledTexts:
    """Texts with their labels, as a source of samples.

    Args:
        samples: Texts and their labels.
    """

    def __init__(self, samples: Sequence[tuple[str, int]]) -> None:
        self.texts = [text for text, _ in samples]
        self.labels = [int(label == MACHINE) for _, label in samples]

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        return {"text": self.texts[index], "y": self.labels[index]}


@lru_cache(maxsize=16)
def records_of(source: Part[TextSource]) -> tuple[Record, ...]:
    """Return the records of a source."""
    return tuple(source.build().records())


def is_of(record: Record, decodings: Sequence[str], priming: str) -> bool:
    """Return whether a text has the priming and, if it is a machine text, one of the decodings."""
    # a human text has no decoding, but belongs to machine texts of one priming
    known = "priming" if "priming_tokens" in record.decoding else "priming_tokens"
    if condition(record, known) != priming:
        return False
    return record.label == HUMAN or condition(record, "decoding") in decodings


def sample(records: Sequence[Record], most: int | None) -> list[Record]:
    """Return at most `most` records in their order, sampled without replacement; always the same ones."""
    digests = [hashlib.blake2b(record.id.encode(), digest_size=8).digest() for record in records]
    chosen = set(sorted(digests)[:most])
    return [record for record, digest in zip(records, digests, strict=True) if digest in chosen]


def in_fold(record: Record, seed: int, folds: int) -> bool:
    """Return whether a seed tests on this record, of whose document a hash chooses the part."""
    digest = hashlib.blake2b((record.pair_id or record.id).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") % folds == seed % folds
