"""Labelled samples in memory, the currency of the package: models train on them, owners select and share them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lit_core.errors import UserError


@dataclass(frozen=True)
class Samples:
    """Labelled samples of one party.

    Args:
        x: Inputs of shape ``(n, ...)``: images ``(n, channels, height, width)`` as uint8 or as floats in [0, 1], tables
            and embeddings ``(n, features)`` as float32.
        y: Class index of each sample, int64 of shape ``(n,)``.
        classes: Names of the classes, in the order of their indices.
        keys: Key of each sample, unique within the party.
        groups: Group of each sample within its class, such as ``snow``; None if groups are not known.

    Raises:
        UserError: If lengths differ, a key is repeated, or a class index has no name.
    """

    x: Tensor
    y: Tensor
    classes: tuple[str, ...]
    keys: tuple[str, ...]
    groups: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        n = len(self.x)
        if len(self.y) != n or len(self.keys) != n or (self.groups is not None and len(self.groups) != n):
            raise UserError(
                f"x has {n} samples, but y has {len(self.y)} and keys has {len(self.keys)}; give one per sample."
            )
        if len(set(self.keys)) != n:
            raise UserError("keys has a key twice; give each sample a key of its own.")
        if n and not 0 <= int(self.y.min()) <= int(self.y.max()) < len(self.classes):
            raise UserError(
                f"y runs from {int(self.y.min())} to {int(self.y.max())}, but classes has {len(self.classes)} names; "
                "give indices of these names."
            )

    def __len__(self) -> int:
        return len(self.y)

    def take(self, indices: Tensor | Sequence[int]) -> Samples:
        """Return the samples at ``indices``, in that order."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        positions = chosen.tolist()
        return replace(
            self,
            x=self.x[chosen],
            y=self.y[chosen],
            keys=tuple(self.keys[i] for i in positions),
            groups=None if self.groups is None else tuple(self.groups[i] for i in positions),
        )

    def of_classes(self, names: Sequence[str]) -> Samples:
        """Return the samples of some classes; class indices do not change."""
        wanted = torch.tensor([self.classes.index(name) for name in names], dtype=torch.int64)
        return self.take(torch.isin(self.y, wanted).nonzero().squeeze(1))

    def renumbered(self, classes: Sequence[str]) -> Samples:
        """Return the same samples with class indices of ``classes``; classes are matched by name.

        Raises:
            UserError: If a sample's class is not among ``classes``.
        """
        missing = sorted({self.classes[int(c)] for c in self.y.unique()} - set(classes))
        if missing:
            raise UserError(
                f"The samples hold the class {missing[0]!r}, but the model or the other data have "
                f"{', '.join(classes)}; use data of the same classes."
            )
        index_of = {name: index for index, name in enumerate(classes)}
        new_index = torch.tensor([index_of.get(name, -1) for name in self.classes], dtype=torch.int64)
        return replace(self, y=new_index[self.y], classes=tuple(classes))

    def inputs(self) -> Tensor:
        """Return ``x`` as float32, uint8 images scaled to [0, 1]."""
        return as_inputs(self.x)


def as_inputs(x: Tensor) -> Tensor:
    """Return inputs as a network takes them: float32, uint8 images scaled to [0, 1]."""
    return x.float() / 255 if x.dtype == torch.uint8 else x.float()


def merge_samples(parts: Sequence[Samples]) -> Samples:
    """Concatenate sets of samples.

    Args:
        parts: The sets, one or more.

    Returns:
        All samples. The classes are those of the first set, followed by further ones; groups stay if all sets have
        them.

    Raises:
        UserError: If there is no set, inputs have different shapes, or two samples have the same key.
    """
    if not parts:
        raise UserError("There are no sets to merge; give at least one.")
    shapes = {tuple(part.x.shape[1:]) for part in parts}
    if len(shapes) > 1:
        raise UserError(
            f"The sets hold inputs of the shapes {min(shapes)} and {max(shapes)}; give inputs of one shape."
        )
    classes = tuple(dict.fromkeys(name for part in parts for name in part.classes))
    numbered = [part.renumbered(classes) for part in parts]
    same_dtype = len({part.x.dtype for part in parts}) == 1
    groups = [part.groups for part in parts]
    return Samples(
        torch.cat([part.x if same_dtype else part.inputs() for part in numbered]),
        torch.cat([part.y for part in numbered]),
        classes,
        tuple(key for part in parts for key in part.keys),
        None if None in groups else tuple(group for of_part in groups for group in of_part or ()),
    )
