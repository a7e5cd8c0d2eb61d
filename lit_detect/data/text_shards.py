"""Text shard sets: how records lie on disk.

A record is a member ``<key>.txt``, the text as it was found, and a member ``<key>.json`` with all its other fields.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from lit_core.data.shards import ShardSet, write_index, write_shard
from lit_core.errors import RunFailure, UserError
from lit_detect.records import HUMAN, MACHINE, Record

KIND = "texts"
#: A shard ends after so many bytes of text, even where it has fewer records than asked for.
SHARD_BYTES = 32_000_000

_ABOUT = tuple(field.name for field in fields(Record) if field.name != "text")


class TextWriter:
    """Writes records one after the other to a text shard set; equal records give equal bytes.

    No more than one shard's records are held in memory. The folder is no set before `finish` has written its index.

    Args:
        folder: Folder of the set.
        shard_size: Records per shard, 1 or more.
    """

    def __init__(self, folder: str | Path, shard_size: int = 2000) -> None:
        self.folder, self.shard_size = Path(folder), shard_size
        self._entries: list[dict[str, Any]] = []
        self._waiting: list[dict[str, Any]] = []
        self._bytes = 0
        self._labels: list[int] = []
        self._lengths: list[int] = []
        self._digests: list[str] = []

    def __len__(self) -> int:
        return len(self._labels)

    def add(self, record: Record) -> None:
        """Write a record; its label must be known.

        Raises:
            UserError: If the text is no Unicode, or `meta` holds something that is not plain.
            RunFailure: If the disk is full.
        """
        about = record.to_dict()
        text = about.pop("text")
        encoded = text.encode()
        key = f"{len(self._labels):09d}"
        self._waiting.append({"__key__": key, "txt": text, "json": about, "__text_bytes__": len(encoded)})
        self._bytes += len(encoded)
        self._labels.append(HUMAN if record.label == HUMAN else MACHINE)
        self._lengths.append(len(text))
        self._digests.append(hashlib.blake2b(encoded, digest_size=8).hexdigest())
        if len(self._waiting) >= self.shard_size or self._bytes >= SHARD_BYTES:
            self._flush()

    def finish(
        self, *, source: str, split: str, licence: str = "", origin: str = "", meta: Mapping[str, Any] | None = None
    ) -> None:
        """Write what is left, and the index.

        Args:
            source: Name of the source.
            split: ``train``, ``val`` or ``test``.
            licence: Licence of the texts.
            origin: Where the texts come from.
            meta: Plain values to keep in the index.

        Raises:
            RunFailure: If the disk is full.
        """
        self._flush()
        kept = {
            **(meta or {}),
            "human": self._labels.count(HUMAN),
            "machine": self._labels.count(MACHINE),
            "median_characters": float(np.median(self._lengths)) if self._lengths else 0.0,
            # so that they are known without reading the shards
            "labels": "".join(map(str, self._labels)),
            "digests": "".join(self._digests),
        }
        write_index(
            self.folder,
            self._entries,
            kind=KIND,
            source=source,
            split=split,
            licence=licence,
            origin=origin,
            meta=kept,
        )

    def _flush(self) -> None:
        if self._waiting:
            self._entries.append(write_shard(self.folder / f"{len(self._entries):06d}.tar", self._waiting))
            self._waiting, self._bytes = [], 0


def write_texts(
    folder: str | Path,
    records: Iterable[Record],
    *,
    source: str,
    split: str,
    licence: str = "",
    origin: str = "",
    shard_size: int = 2000,
) -> None:
    """Write records as a text shard set, in their order; see `TextWriter`."""
    writer = TextWriter(folder, shard_size)
    for record in records:
        writer.add(record)
    writer.finish(source=source, split=split, licence=licence, origin=origin)


class TextSet:
    """A text shard set, read record by record.

    Sample i is ``text``, ``y`` (0 human, 1 machine) and ``index``, i. Safe to use in data-loading processes.

    Args:
        folder: Folder with ``index.json`` and the shards.
        transform: What is done to the text of a sample, such as `normalize_text`; None gives it out as it was found.
            Records keep their text as it was found.
        verify: Whether the shards are compared with their SHA-256; without, only what the index says may be relied on.

    Attributes:
        meta: What the index keeps beside the records, such as the median length.

    Raises:
        UserError: If the folder is no text shard set, or a shard is missing or not what the index describes.
    """

    def __init__(self, folder: str | Path, transform: Callable[[str], str] | None = None, verify: bool = True) -> None:
        self.folder, self.transform = Path(folder), transform
        self.shards = ShardSet(folder, verify)
        index = self.shards.index
        if index["kind"] != KIND:
            raise UserError(f"{folder} holds shards of kind {index['kind']!r}, but texts are needed; correct the path.")
        self.meta: dict[str, Any] = index["meta"]
        labels = self._per_text("labels", 1, "01")
        self._labels = np.frombuffer(labels.encode(), dtype=np.uint8).astype(np.int64) - ord("0")

    def __len__(self) -> int:
        return len(self.shards)

    @property
    def content(self) -> str:
        """SHA-256 of the shards."""
        return self.shards.content

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read one sample.

        Raises:
            RunFailure: If the file is damaged.
        """
        text = self._text(index)
        return {"text": self.transform(text) if self.transform else text, "y": int(self._labels[index]), "index": index}

    def batch(self, indices: Sequence[int]) -> dict[str, Any]:
        """Read several samples: ``text`` a list of strings, ``y`` and ``index`` int64 of shape ``(n,)``."""
        import torch  # which only training needs

        rows = [self[int(index)] for index in indices]
        numbers = {key: torch.tensor([row[key] for row in rows], dtype=torch.int64) for key in ("y", "index")}
        return {"text": [row["text"] for row in rows], **numbers}

    def labels(self) -> np.ndarray:
        """Return the label of each text, 0 human and 1 machine, int64 of shape ``(n,)``, without reading the texts."""
        return self._labels

    def record(self, index: int) -> Record:
        """Read a whole record.

        Raises:
            RunFailure: If the file is damaged.
        """
        return self._record(index, self._text(index))

    def about(self, index: int) -> Record:
        """Read a record but for its text, which is empty; much faster where texts are long.

        Raises:
            RunFailure: If the file is damaged.
        """
        return self._record(index, "")

    def digests(self) -> np.ndarray:
        """Return the first 64 bits of a hash of each text, uint64 of shape ``(n,)``, without reading the texts."""
        return np.frombuffer(bytes.fromhex(self._per_text("digests", 16, "0123456789abcdef")), dtype=">u8")

    def _per_text(self, key: str, size: int, alphabet: str) -> str:
        found = self.meta.get(key)
        if not isinstance(found, str) or len(found) != size * len(self) or set(found) - set(alphabet):
            raise UserError(
                f'{self.folder}/index.json is malformed: "{key}" in "meta" must have {size} of the characters '
                f"{alphabet} for each text; prepare it again."
            )
        return found

    def _text(self, index: int) -> str:
        found = self.shards.read(index, ("txt",))
        if "txt" not in found:
            raise self._damaged(index, "it has no text")
        return found["txt"]

    def _record(self, index: int, text: str) -> Record:
        about = self.shards.read(index, ("json",)).get("json")
        if not isinstance(about, dict) or about.keys() != set(_ABOUT) or about["label"] != self._labels[index]:
            raise self._damaged(index, "what is known of it is not a record with the label that the index names")
        return Record(text=text, **about)

    def _damaged(self, index: int, what: str) -> RunFailure:
        return RunFailure(f"{self.folder} is damaged at text {index}: {what}; restore the set or prepare it again.")
