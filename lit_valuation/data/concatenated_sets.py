"""Several labelled sets as one, and the subset of one group."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_core.errors import UserError
from lit_valuation.data.labelled_sets import LabelledSet
from lit_valuation.samples import NAMED, Samples, moved

#: Sets of up to this many bytes as float32 stay in memory once read; larger sets are decoded when needed.
IN_MEMORY = 2**30


class ConcatenatedSets:
    """Concatenation of labelled sets, with the class indices of the first.

    Args:
        sets: The sets, one or more.
        classes: Names of the classes, in the order of their indices; None takes those of the first set.
        weights: Weight of each sample in the loss, of shape ``(n,)``, which batches then have; None for 1 each.
        rows: Indices of the samples of each set that belong to it, int64; None takes all of all sets.

    Raises:
        UserError: If a set has inputs of another shape, another kind of targets, a sample of a class that is not among
            the classes, or other target columns.
    """

    def __init__(
        self,
        sets: Sequence[LabelledSet],
        classes: Sequence[str] | None = None,
        weights: Tensor | None = None,
        rows: Sequence[Tensor] | None = None,
    ) -> None:
        self.weights = weights
        self.sets, self.classes = list(sets), tuple(sets[0].classes if classes is None else classes)
        self.target = sets[0].target
        self._rows = [torch.arange(len(each)) for each in sets] if rows is None else list(rows)
        self._starts = np.cumsum([0, *map(len, self._rows)])
        self._in_memory: dict[int, Samples] = {}
        self._columns: dict[int, Tensor] = {}
        for each in self.sets:
            if each.shape != self.sets[0].shape:
                raise UserError(
                    f"{each.folder} holds inputs of shape {each.shape}, but {self.sets[0].folder} of shape "
                    f"{self.sets[0].shape}; give sets with inputs of one shape."
                )
            if each.target != self.target:
                raise UserError(
                    f"{each.folder} has the target {each.target}, but {self.sets[0].folder} has {self.target}; give "
                    "sets of one kind of target."
                )
            if each.vocabulary != self.sets[0].vocabulary:
                raise UserError(
                    f"{each.folder} has the vocabulary {each.vocabulary}, but {self.sets[0].folder} has "
                    f"{self.sets[0].vocabulary}; prepare both with one tokenizer."
                )
            if self.target in ("labels", "values"):
                self._columns[len(self._columns)] = _columns(each, self.classes)
                continue
            unknown = set(each.classes) - set(self.classes)
            counts = each.targets().counts() if unknown else {}
            for name in sorted(name for name in unknown if counts.get(name)):
                what = "class" if self.target == "class" else "tag"
                raise UserError(
                    f"{each.folder} holds samples of the {what} {name!r}, which is not among those of "
                    f"{self.sets[0].folder}: {', '.join(self.classes)}; remove these samples."
                )

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def content(self) -> str:
        """SHA-256 of each set, in their order, of the rows where some are left out, and of the weights if any."""
        parts = [rows for rows, each in zip(self._rows, self.sets, strict=True) if len(rows) < len(each)]
        parts += [] if self.weights is None else [self.weights]
        digests = [hashlib.sha256(part.numpy().tobytes()).hexdigest() for part in parts]
        return " ".join([*(each.content for each in self.sets), *digests])

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        return {key: value[0] for key, value in self.batch([index]).items()}

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """Read several samples, stacked."""
        rows = np.asarray(indices, dtype=np.int64)
        set_of_row = np.searchsorted(self._starts, rows, side="right") - 1
        is_text, shape = self.target in ("tags", "text"), self.sets[0].shape
        of_sample = shape if is_text else () if self.target == "class" else (len(self.classes),)
        x = torch.empty(len(indices), *shape, dtype=torch.int64 if is_text else torch.float32)
        y = torch.empty(len(indices), *of_sample, dtype=torch.float32 if self._columns else torch.int64)
        for number in np.unique(set_of_row):
            positions = np.flatnonzero(set_of_row == number)
            # a batch that ends an epoch and begins the next may hold a sample twice
            different, inverse = np.unique(rows[positions] - self._starts[number], return_inverse=True)
            samples = self._read(int(number), self._rows[number][different].tolist())
            x[positions] = samples.inputs()[inverse]
            y[positions] = self._targets(int(number), samples.y[inverse])
        index = torch.from_numpy(rows)
        batch = {"x": x, "y": y, "index": index}
        return batch if self.weights is None else batch | {"weight": self.weights[index]}

    def _targets(self, number: int, y: Tensor) -> Tensor:
        """Return targets of the set with this index by the classes, tags or columns of all."""
        if self.target == "text":
            return y
        if number in self._columns:
            return y[:, self._columns[number]]
        return moved(y, self.sets[number].classes, self.classes)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_in_memory": {}}

    def _read(self, number: int, rows: list[int]) -> Samples:
        """Return samples of the set with this index, by their indices in it."""
        each = self.sets[number]
        if 4 * len(each) * prod(each.shape) > IN_MEMORY:
            return each.load(rows)
        if number not in self._in_memory:
            self._in_memory[number] = each.load()
        return self._in_memory[number].take(rows)


def _columns(each: LabelledSet, names: Sequence[str]) -> Tensor:
    """Return where a set has each of the named target columns, int64 of shape ``(k,)``."""
    if set(each.classes) != set(names):
        named = NAMED[each.target]
        raise UserError(
            f"{each.folder} has the {named} {', '.join(each.classes)}, but {', '.join(names)} are wanted; give sets of "
            f"the same {named}."
        )
    return torch.tensor([each.classes.index(name) for name in names], dtype=torch.int64)
