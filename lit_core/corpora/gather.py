"""A corpus as one file of text on disk, and the division of its documents between train, val and test."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from lit_core.corpora.base import Corpus
from lit_core.data.shards import SPLITS
from lit_core.errors import UserError
from lit_core.files.json_files import read_json
from lit_core.files.paths import atomic_path, atomic_write


@dataclass(frozen=True)
class Span:
    """Where a document's UTF-8 text lies in a gathered file.

    Args:
        offset: First byte.
        size: Number of bytes.
    """

    offset: int
    size: int


class _Documents(TypedDict):
    """Content of the index of gathered documents."""

    ids: list[str]
    groups: list[str]
    spans: list[tuple[int, int]]
    sha256: str
    duplicates: int


@dataclass(frozen=True)
class Gathered:
    """The text of a corpus in one file, which all processes read by offset.

    Args:
        path: The file with all documents, concatenated.
        ids: Name of each document.
        groups: Group of each document.
        spans: Where each document lies.
        sha256: Hash of the file.
        duplicates: Number of documents left out because an earlier one has the same text.
    """

    path: Path
    ids: list[str]
    groups: list[str]
    spans: list[Span]
    sha256: str
    duplicates: int

    @classmethod
    def make(cls, corpus: Corpus, folder: Path, advance: Callable[[int], object]) -> Gathered:
        """Write a corpus into a folder, or read the files that an earlier call has written there.

        Args:
            corpus: The corpus.
            folder: The folder; an incomplete result in it is overwritten.
            advance: Called with the size of each document in bytes.

        Raises:
            UserError: If the corpus has no document, two of one name, or a text that is not Unicode.
            RunFailure: If the disk is full.
        """
        path, index = folder / "text.bin", folder / "documents.json"
        if not index.is_file():
            cls._write(corpus, path, index, advance)
        stored = read_json(index, _Documents, f"remove {folder} to read the corpus again")
        spans = [Span(offset, size) for offset, size in stored["spans"]]
        return cls(path, stored["ids"], stored["groups"], spans, stored["sha256"], stored["duplicates"])

    @staticmethod
    def _write(corpus: Corpus, path: Path, index: Path, advance: Callable[[int], object]) -> None:
        ids: dict[str, None] = {}
        groups: list[str] = []
        spans: list[tuple[int, int]] = []
        seen: set[bytes] = set()
        digest, offset, duplicates = hashlib.sha256(), 0, 0
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            for document in corpus.documents():
                try:
                    text = document.text.encode()
                except UnicodeEncodeError as error:
                    raise UserError(
                        f"The document {document.id} of {corpus.name} is not Unicode text ({error}); fix or remove it."
                    ) from error
                if document.id in ids:
                    raise UserError(f"{corpus.name} has two documents named {document.id}; give each its own name.")
                advance(len(text))
                # Equal texts on two sides of a split would be a leak.
                fingerprint = hashlib.blake2b(text, digest_size=16).digest()
                if not text.strip() or fingerprint in seen:
                    duplicates += bool(text.strip())
                    continue
                seen.add(fingerprint)
                ids[document.id] = None
                groups.append(document.group)
                spans.append((offset, len(text)))
                offset += file.write(text)
                digest.update(text)
            if not ids:
                raise UserError(
                    f"The corpus {corpus.name} is empty: there is no document with text in {corpus.origin}; correct "
                    "its path or pattern."
                )
        content = {"ids": list(ids), "groups": groups, "spans": spans, "sha256": digest.hexdigest()}
        atomic_write(index, json.dumps(content | {"duplicates": duplicates}, ensure_ascii=False))


def divide(
    gathered: Gathered,
    name: str,
    *,
    val_fraction: float,
    test_fraction: float,
    max_bytes: int | None,
    seed: int,
) -> dict[str, list[Span]]:
    """Divide documents between train, val and test, and order each split so that its groups are evenly mixed.

    1. Each group of documents is divided separately. A document's rank in it is a hash of the seed and its name, so
       translations of one text, whose documents have equal names, are divided alike as far as sizes allow.
    2. The first documents go to test and val, until these have their fractions of the group's bytes; the others go to
       train. A document larger than half of val or test goes to train, if another one can take its place.
    3. Each split is ordered by relative rank, so any prefix of it has all groups in proportion.
    4. With ``max_bytes`` each split is cut to its share, the last document at a line break.

    Args:
        gathered: The documents.
        name: Name of the source, for messages.
        val_fraction: Fraction of the bytes of each group for val; if above 0, at least one document.
        test_fraction: The same for test.
        max_bytes: Maximum bytes of all splits together; None takes all.
        seed: Seed of the division and the order.

    Returns:
        Spans by split, in order; a split whose fraction is 0 is missing.

    Raises:
        UserError: If there are too few documents for the splits.
    """
    fractions = {"test": test_fraction, "val": val_fraction}
    wanted = [split for split in SPLITS if fractions.get(split, 1.0) > 0]
    if len(gathered.ids) < len(wanted):
        raise UserError(
            f"{name} has {len(gathered.ids)} document(s), but {', '.join(wanted)} need one each, since a document is "
            "never divided between splits; give more documents, a separator that divides them, or fractions of 0."
        )
    ranks = [_hash(f"{seed}/{document}") for document in gathered.ids]
    groups: dict[str, list[int]] = {}
    for document, group in enumerate(gathered.groups):
        groups.setdefault(group, []).append(document)
    # Groups that are too small for all splits are merged into one group.
    small = [group for group, members in groups.items() if len(members) < len(wanted)]
    rest = [document for group in small for document in groups.pop(group)]
    if rest:
        if len(rest) < len(wanted):
            rest += groups.pop(next(iter(groups)))
        groups[""] = rest + groups.get("", [])
    total = sum(span.size for span in gathered.spans)
    keyed: dict[str, list[tuple[float, int]]] = {split: [] for split in wanted}
    for members in groups.values():
        members = sorted(members, key=lambda document: ranks[document])
        whole = sum(gathered.spans[document].size for document in members)
        for split in reversed(wanted):  # train takes what is left
            chosen = members
            if split != "train":
                # One document must not dominate an evaluated split.
                limit = fractions[split] * total / 2
                candidates = [document for document in members if gathered.spans[document].size <= limit] or members
                sizes = [gathered.spans[document].size for document in candidates]
                chosen = _take(candidates, sizes, fractions[split] * whole)[: len(members) - wanted.index(split)]
            taken = set(chosen)
            members = [document for document in members if document not in taken]
            keyed[split] += [((rank + ranks[document]) / len(chosen), document) for rank, document in enumerate(chosen)]
    divided = {split: [gathered.spans[document] for _, document in sorted(keyed[split])] for split in wanted}
    if max_bytes is None:
        return divided
    shares = fractions | {"train": 1 - val_fraction - test_fraction}
    return {split: _cut(gathered.path, spans, int(shares[split] * max_bytes)) for split, spans in divided.items()}


def _take(members: Sequence[int], sizes: Sequence[int], target: float) -> list[int]:
    """Return the first members whose total size is nearest to the target, at least one."""
    taken = 0
    for count, size in enumerate(sizes):
        if count and taken + size / 2 > target:
            return list(members[:count])
        taken += size
    return list(members)


def _cut(path: Path, spans: Sequence[Span], budget: int) -> list[Span]:
    """Return the first spans up to a number of bytes; a first document without a line break is kept whole."""
    chosen: list[Span] = []
    for span in spans:
        if span.size > budget:
            with path.open("rb") as file:
                file.seek(span.offset)
                size = file.read(budget).rfind(b"\n") + 1
            return [*chosen, Span(span.offset, size)] if size else chosen or [span]
        chosen.append(span)
        budget -= span.size
    return chosen


def _hash(text: str) -> float:
    """Return a number in [0, 1) that is the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=6).digest(), "big") / (1 << 48)
