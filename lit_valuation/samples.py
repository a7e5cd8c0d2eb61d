"""Labelled samples in memory: what models train on, selectors choose from and owners share."""

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
        y: Numbers of the classes, int64 of shape ``(n,)``.
        classes: Names of the classes by number.
        keys: Name of each sample, unique within the party.
        groups: What part of its class each sample belongs to, such as ``snow``; None where nothing is known.
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
            raise UserError("keys name a sample twice; give each sample a name of its own.")
        if n and not 0 <= int(self.y.min()) <= int(self.y.max()) < len(self.classes):
            raise UserError(f"y holds class {int(self.y.max())}, but there are {len(self.classes)} names in classes.")

    def __len__(self) -> int:
        return len(self.y)

    def take(self, indices: Tensor | Sequence[int]) -> Samples:
        """Return some of the samples, in the order of ``indices``."""
        chosen = torch.as_tensor(indices, dtype=torch.int64)
        numbers = chosen.tolist()
        return replace(
            self,
            x=self.x[chosen],
            y=self.y[chosen],
            keys=tuple(self.keys[i] for i in numbers),
            groups=None if self.groups is None else tuple(self.groups[i] for i in numbers),
        )

    def of_classes(self, names: Sequence[str]) -> Samples:
        """Return the samples of some classes, still numbered as before."""
        wanted = torch.tensor([self.classes.index(name) for name in names], dtype=torch.int64)
        return self.take(torch.isin(self.y, wanted).nonzero().squeeze(1))

    def renumbered(self, classes: Sequence[str]) -> Samples:
        """Return the same samples numbered as in ``classes``; classes are matched by name.

        Raises:
            UserError: If a sample's class is not among ``classes``.
        """
        missing = sorted({self.classes[int(c)] for c in self.y.unique()} - set(classes))
        if missing:
            raise UserError(
                f"The samples hold the class {missing[0]!r}, but the model or the other data know "
                f"{', '.join(classes)}; give those that belong together."
            )
        order = {name: number for number, name in enumerate(classes)}
        table = torch.tensor([order.get(name, -1) for name in self.classes], dtype=torch.int64)
        return replace(self, y=table[self.y], classes=tuple(classes))

    def inputs(self) -> Tensor:
        """Return ``x`` as a network takes it: uint8 images become floats in [0, 1]."""
        return as_inputs(self.x)


def as_inputs(x: Tensor) -> Tensor:
    """Return samples as a network takes them: uint8 images become floats in [0, 1]."""
    return x.float() / 255 if x.dtype == torch.uint8 else x.float()


def merge_samples(parts: Sequence[Samples]) -> Samples:
    """Return samples of several sets as one, numbered by the classes of the first, with further ones appended.

    Groups are kept where all sets have them.

    Raises:
        UserError: If there is no set, inputs are of several shapes, or two samples have one key.
    """
    if not parts:
        raise UserError("There are no samples to take together; give at least one set.")
    shapes = {tuple(part.x.shape[1:]) for part in parts}
    if len(shapes) > 1:
        raise UserError(
            f"The sets hold inputs of the shapes {min(shapes)} and {max(shapes)}; give inputs of one shape."
        )
    classes = tuple(dict.fromkeys(name for part in parts for name in part.classes))
    numbered = [part.renumbered(classes) for part in parts]
    alike = len({part.x.dtype for part in parts}) == 1
    groups = [part.groups for part in parts]
    return Samples(
        torch.cat([part.x if alike else part.inputs() for part in numbered]),
        torch.cat([part.y for part in numbered]),
        classes,
        tuple(key for part in parts for key in part.keys),
        None if None in groups else tuple(group for of_part in groups for group in of_part or ()),
    )
