"""A batch of labelled samples, from the pairs or mappings that loaders yield."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lit_core.data import Stream, StreamLoader
from lit_core.data.stream import IGNORED
from lit_core.errors import UserError

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


@dataclass(frozen=True)
class Batch:
    """A batch of labelled samples.

    Args:
        x: Inputs, ``(batch, ...)``.
        y: Targets: class indices, ``(batch,)``, -100 for rows that are not scored; or labels or values as floats,
            ``(batch, k)``; or an index per position of a text, int64 of shape ``(batch, positions)``.
        index: Index of each sample in its set, -1 for rows that only pad the batch; None if not known.
        weight: Weight of each sample in the loss, ``(batch,)``; None for equal weights.
    """

    x: Any
    y: Tensor
    index: Tensor | None = None
    weight: Tensor | None = None

    def real(self) -> Tensor:
        """Return which rows are samples and not padding, bool of shape ``(batch,)``."""
        if self.index is None:
            return torch.ones(len(self.y), dtype=torch.bool, device=self.y.device)
        return self.index >= 0

    @property
    def has_positions(self) -> bool:
        """Whether the samples are texts with a target per position."""
        return self.y.ndim == 2 and not self.y.is_floating_point()

    def scored(self) -> Tensor:
        """Return which rows are samples with a target, which losses and scores count, bool of shape ``(batch,)``."""
        if self.y.is_floating_point():
            return self.real()
        has_target = self.y != IGNORED
        return self.real() & (has_target.any(1) if self.has_positions else has_target)


def as_batch(batch: Any, keys: Sequence[str | int] = ("x", "y")) -> Batch:
    """Convert what a loader yields to a `Batch`.

    Args:
        batch: A pair ``(x, y)``, or a mapping with the keys and optionally ``index`` and ``weight``; a `Batch` is
            returned unchanged.
        keys: Names of inputs and labels in a mapping.

    Raises:
        UserError: If the batch is none of these.
    """
    if isinstance(batch, Batch):
        return batch
    if isinstance(batch, Mapping):
        missing = [key for key in keys if key not in batch]
        if missing:
            raise UserError(
                f"A batch has the keys {', '.join(map(str, batch))}, but not {missing[0]!r}; name the keys of "
                "inputs and labels."
            )
        return Batch(batch[keys[0]], batch[keys[1]], batch.get("index"), batch.get("weight"))
    if isinstance(batch, Sequence) and len(batch) == 2:
        return Batch(*batch)
    raise UserError(
        f"A batch is a {type(batch).__name__}, but must be a pair (x, y) or a mapping with the keys "
        f"{', '.join(map(str, keys))}; change the loader's collation."
    )


def check_takes_weights(module: object, argument: str = "mass") -> None:
    """Refuse a module that would ignore the weights of samples.

    Args:
        module: The module that is trained.
        argument: Name of the argument that gives samples weights, for the message.

    Raises:
        UserError: If the module does not have ``takes_weights = True``.
    """
    if not getattr(module, "takes_weights", False):
        raise UserError(
            f"`{argument}` weighs samples, but {type(module).__name__} does not say that it takes weights; multiply "
            "the loss of each sample by the batch's `weight` and set takes_weights = True, or leave it out."
        )


def batch_sizes(trainer: Trainer) -> dict[str, int] | None:
    """Return ``global_batch_size`` and ``micro_batch_size`` of a training; None if its loader has no batch size.

    Args:
        trainer: A trainer in ``fit``.
    """
    loader = trainer.train_dataloader
    if isinstance(loader, StreamLoader) and isinstance(loader.stream, Stream):
        stream = loader.stream
        return {"global_batch_size": stream.global_batch_size, "micro_batch_size": stream.micro_batch_size}
    size = getattr(loader, "batch_size", None)
    if not isinstance(size, int):
        return None
    return {
        "global_batch_size": size * trainer.world_size * trainer.accumulate_grad_batches,
        "micro_batch_size": size,
    }
