"""Division of texts among train, val and test; pairs and equal texts stay in one split."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Sequence
from math import floor
from typing import Any

from lit_core.errors import UserError
from lit_detect.records import SPLITS, Record

#: A text that occurs in two given splits stays in the one with the lower rank.
_RANK = {"test": 0, "val": 1, "train": 2, "": 3}

#: Label and domain of each record of a group.
Stratum = frozenset[tuple[int, str]]


def divide(groups: Sequence[tuple[Hashable, str]], val_fraction: float, test_fraction: float, seed: int) -> list[str]:
    """Divide groups among train, val and test.

    Groups are sorted by stratum, and within a stratum by a hash of key and seed. Each split takes groups at equal
    distances in that order, so it has its fraction of each stratum up to one group.

    Args:
        groups: Stratum and key of each group; keys differ.
        val_fraction: Fraction for val, 0 or more. Its sum with ``test_fraction`` is at most 1.
        test_fraction: Fraction for test, 0 or more.
        seed: Seed of the order.

    Returns:
        Name of the split of each group.
    """
    order = sorted(range(len(groups)), key=lambda i: (repr(groups[i][0]), _digest(str(seed), groups[i][1])))
    splits = ["train"] * len(groups)
    for split, share in (("test", test_fraction), ("val", val_fraction / (1 - test_fraction or 1))):
        taken = [i for rank, i in enumerate(order) if floor((rank + 1) * share + 0.5) > floor(rank * share + 0.5)]
        for i in taken:
            splits[i] = split
        order = [i for i in order if splits[i] == "train"]
    return splits


class Survey:
    """The facts about each record of a source that decide its split. Texts are stored as hashes only.

    Records with the same ``pair_id`` form a group. Groups without a given split that share a text are merged into one.
    A record takes about 700 bytes.

    Args:
        name: Name of the source, for messages.
        keep_splits: Whether the splits of the records are kept.
    """

    def __init__(self, name: str, keep_splits: bool = True) -> None:
        self.name, self.keep_splits = name, keep_splits
        self._ids: set[bytes] = set()
        self._groups: dict[str, int] = {}  # number of each group by its key
        self._texts: dict[bytes, int] = {}
        self._kinds: dict[bytes, int] = {}
        self._strata: list[Stratum] = []  # of each group
        self._known: dict[Stratum, Stratum] = {}  # groups share one object per stratum
        self._rows: list[tuple[int, int, int, str]] = []  # group, text and kind of each record, and its given split

    def add(self, record: Record) -> None:
        """Store the facts about a record.

        Raises:
            UserError: If the text is empty, the label is unknown, or an earlier record has the same id.
        """
        if record.label is None:
            raise UserError(
                f"The text {record.id!r} of the source {self.name} has no label, so a detector can't be trained or "
                "tested on it; give it to `predict`, or leave it out."
            )
        if not record.text.strip():
            raise UserError(f"The text {record.id!r} of the source {self.name} is empty; remove it.")
        size = len(self._ids)
        self._ids.add(_digest(record.id))
        if len(self._ids) == size:
            raise UserError(f"The id {record.id!r} occurs twice in the source {self.name}; give each text its own.")
        key = f"pair {record.pair_id}" if record.pair_id else f"alone {record.id}"
        group = self._groups.setdefault(key, len(self._groups))
        if group == len(self._strata):
            self._strata.append(frozenset())
        stratum = self._strata[group] | {(record.label, record.domain)}
        self._strata[group] = self._known.setdefault(stratum, stratum)
        facts = [record.label, record.source, record.attack, dict(record.decoding)]
        text = self._texts.setdefault(_digest(record.text), len(self._texts))
        kind = self._kinds.setdefault(_digest(record.text, json.dumps(facts, sort_keys=True)), len(self._kinds))
        self._rows.append((group, text, kind, record.split if self.keep_splits else ""))

    def splits(self, val_fraction: float, test_fraction: float, seed: int) -> list[str]:
        """Return the split of each record, an empty string for a record that is left out.

        A record is left out if an earlier one has the same text, label, source, attack and decoding. If a text occurs
        in two given splits, its records in the split nearer to training are left out. If a source has a training set
        and no validation set, val is drawn from the training set.

        Raises:
            UserError: If the records of a pair have different given splits.
        """
        given = {split for *_, split in self._rows}
        divided = {"", "train"} if "train" in given and "val" not in given else {""}
        parent = self._joined(divided)
        of_group: dict[int, str] = {}
        for group, _, _, split in self._rows:
            root = _find(parent, group)
            if split and split not in divided and of_group.setdefault(root, split) != split:
                self._refuse_divided(group, {split, of_group[root]})
        in_training = (
            {_find(parent, row[0]) for row in self._rows if row[3] == "train"} if "train" in divided else set()
        )
        for root in in_training & set(of_group):
            self._refuse_divided(root, {"train", of_group[root]})
        keys = self._keys(parent)
        rest = [root for root in keys if root not in of_group and root not in in_training]
        for roots, test in ((rest, test_fraction), (sorted(in_training), 0.0)):
            strata = [(keys[root][0], keys[root][1]) for root in roots]
            of_group |= dict(zip(roots, divide(strata, val_fraction, test, seed), strict=True))
        splits = [of_group[_find(parent, group)] for group, *_ in self._rows]
        return self._without_copies(splits)

    def _joined(self, divided: set[str]) -> list[int]:
        """Merge the groups that are to be divided and share a text. Returns the parents of a union-find forest."""
        parent = list(range(len(self._strata)))
        first: dict[int, int] = {}
        for group, text, _, split in self._rows:
            if split in divided:
                one, other = _find(parent, first.setdefault(text, group)), _find(parent, group)
                parent[max(one, other)] = min(one, other)
        return parent

    def _keys(self, parent: list[int]) -> dict[int, tuple[Any, str]]:
        """Return stratum and key of each merged group by its root."""
        strata: dict[int, set[tuple[int, str]]] = {}
        keys: dict[int, str] = {}
        for key, group in self._groups.items():
            root = _find(parent, group)
            strata.setdefault(root, set()).update(self._strata[group])
            keys[root] = min(keys.get(root, key), key)
        return {root: (sorted(strata[root]), keys[root]) for root in strata}

    def _without_copies(self, splits: list[str]) -> list[str]:
        best: dict[int, str] = {}
        for (_, text, _, _), split in zip(self._rows, splits, strict=True):
            best[text] = min(best.get(text, split), split, key=_RANK.__getitem__)
        seen: set[int] = set()
        for index, ((_, text, kind, _), split) in enumerate(zip(self._rows, splits, strict=True)):
            if split != best[text] or kind in seen:
                splits[index] = ""
            else:
                seen.add(kind)
        return splits

    def _refuse_divided(self, group: int, splits: set[str]) -> None:
        key = next(key for key, number in self._groups.items() if number == group).partition(" ")[2]
        both = " and ".join(split for split in SPLITS if split in splits)
        raise UserError(
            f"The pair {key!r} of the source {self.name} is in {both}, but a pair must stay in one split; set "
            "keep_splits to false to divide the source without its own splits."
        )


def _find(parent: list[int], group: int) -> int:
    while parent[group] != group:
        parent[group] = parent[parent[group]]
        group = parent[group]
    return group


def _digest(*parts: str) -> bytes:
    return hashlib.blake2b("\0".join(parts).encode(errors="surrogatepass"), digest_size=16).digest()
