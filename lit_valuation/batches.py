"""What a batch of labelled samples looks like: pairs or mappings, ours and others'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lit_core.errors import UserError


@dataclass(frozen=True)
class Batch:
    """A batch of labelled samples.

    Args:
        x: Inputs, ``(batch, ...)``.
        y: Numbers of the classes, ``(batch,)``.
        index: Number of each sample in its set, -1 where a row only fills the batch up; None where not known.
        weight: Weight of each sample in the loss; None where all count alike.
    """

    x: Any
    y: Tensor
    index: Tensor | None = None
    weight: Tensor | None = None

    def real(self) -> Tensor:
        """Tell which rows are samples, not padding; bool of shape ``(batch,)``."""
        return self.y == self.y if self.index is None else self.index >= 0


def as_batch(batch: Any, keys: Sequence[str | int] = ("x", "y")) -> Batch:
    """Take a batch as labelled samples.

    Args:
        batch: A pair ``(x, y)``, or a mapping with the keys, and perhaps with ``index`` and ``weight``; a `Batch` stays
            as it is.
        keys: Names of inputs and labels in a mapping.

    Raises:
        UserError: If it is neither.
    """
    if isinstance(batch, Batch):
        return batch
    if isinstance(batch, Mapping):
        missing = [key for key in keys if key not in batch]
        if missing:
            raise UserError(
                f"A batch has the keys {', '.join(map(str, batch))}, but no {missing[0]!r}; name those of inputs and "
                "labels."
            )
        return Batch(batch[keys[0]], batch[keys[1]], batch.get("index"), batch.get("weight"))
    if isinstance(batch, Sequence) and len(batch) == 2:
        return Batch(*batch)
    raise UserError(
        f"A batch is a {type(batch).__name__}, but must be a pair (x, y) or a mapping with the keys "
        f"{', '.join(map(str, keys))}; change the loader's collation."
    )
