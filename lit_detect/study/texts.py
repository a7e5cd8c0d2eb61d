"""Which texts a cell of the detection study is trained and tested on."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from lit_core.study.parts import Part
from lit_detect.data.splitting import Survey
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
    """Return the records of a source. If none has a split, one half of the pairs is for training, the other for tests.

    Raises:
        UserError: If records without a split cannot be divided, such as one without a label.
    """
    built = source.build()
    records = tuple(built.records())
    if any(record.split for record in records):
        return records
    survey = Survey(built.name)
    for record in records:
        survey.add(record)
    splits = survey.splits(val_fraction=0.0, test_fraction=0.5, seed=0)
    return tuple(replace(record, split=split) for record, split in zip(records, splits, strict=True) if split)


def without_twins(records: Sequence[Record], train: Sequence[Record]) -> list[Record]:
    """Return the records without those that belong to a training text: of its pair and domain, or of the same text.

    A source from the wild often has the human texts of the training set, perhaps cut to another length; they and the
    machine texts that continue them would tell what a detector remembers.

    Args:
        records: The records to test on.
        train: The records that are trained on.
    """
    pairs = {(record.domain, record.pair_id) for record in train if record.pair_id}
    texts = {record.text for record in train}
    return [r for r in records if (r.domain, r.pair_id) not in pairs and r.text not in texts]


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
