"""Labelled samples in memory, the currency of the package: models train on them, owners select and share them."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from lit_core.data.stream import IGNORED
from lit_core.errors import UserError

#: What is predicted of a sample: its class, which of several labels it has, one or more numbers, a tag for each token
#: of a text, or each token of a text from those before it.
Target = Literal["class", "labels", "values", "tags", "text"]
#: What `Samples.classes` names, by kind of target.
NAMED: Mapping[Target, str] = {
    "class": "classes",
    "labels": "labels",
    "values": "target columns",
    "tags": "tags",
    "text": "target columns",
}
#: The one target column of texts whose tokens are predicted.
NEXT_TOKEN = "next token"
#: Where a text that is shorter than others has no token.
NO_TOKEN = -1


@dataclass(frozen=True)
class Samples:
    """Labelled samples of one party.

    Args:
        x: Inputs of shape ``(n, ...)``: images ``(n, channels, height, width)`` as uint8 or as floats in [0, 1], tables
            and embeddings ``(n, features)`` as float32, texts ``(n, length)`` as token ids, int64, -1 after the last.
        y: Target of each sample: class index, int64 of shape ``(n,)``; or labels, float32 of 0 and 1 of shape
            ``(n, k)``; or values, finite float32 of shape ``(n, k)``; or for each token the index of its tag, or the
            token after it, int64 of shape ``(n, length)``, -100 where there is none.
        classes: Names of the classes or tags, in the order of their indices; of the k labels; or of the k target
            columns.
        keys: Key of each sample, unique within the party.
        groups: Group of each sample, such as ``snow``; None if groups are not known.
        target: Kind of the targets: ``class``, ``labels`` (several labels per sample), ``values`` (regression),
            ``tags`` (sequence labelling) or ``text`` (language modelling).

    Raises:
        UserError: If lengths differ, a key is repeated, or the targets are not of the kind and shape that ``target``
            and ``classes`` say.
    """

    x: Tensor
    y: Tensor
    classes: tuple[str, ...]
    keys: tuple[str, ...]
    groups: tuple[str, ...] | None = None
    target: Target = "class"

    def __post_init__(self) -> None:
        n = len(self.x)
        if len(self.y) != n or len(self.keys) != n or (self.groups is not None and len(self.groups) != n):
            raise UserError(
                f"x has {n} samples, but y has {len(self.y)} and keys has {len(self.keys)}; give one per sample."
            )
        if len(set(self.keys)) != n:
            raise UserError("keys has a key twice; give each sample a key of its own.")
        if self.target == "class":
            self._check_classes()
        elif self.has_positions:
            self._check_positions()
        else:
            self._check_columns()

    def _check_classes(self) -> None:
        if len(self.y) and not 0 <= int(self.y.min()) <= int(self.y.max()) < len(self.classes):
            raise UserError(
                f"y runs from {int(self.y.min())} to {int(self.y.max())}, but classes has {len(self.classes)} names; "
                "give indices of these names."
            )

    def _check_positions(self) -> None:
        if self.y.ndim != 2 or self.y.dtype != torch.int64 or (self.x.is_floating_point() and self.x.shape[1]):
            raise UserError(
                f"x is {self.x.dtype} and y is {self.y.dtype} of shape {tuple(self.y.shape)}, but {self.target} are "
                "int64 of shape (n, length), as are token ids; give these."
            )
        has_target = self.y != IGNORED
        if self.y.shape[1] and not bool(has_target.any(1).all()):
            empty = self.keys[int((~has_target.any(1)).nonzero()[0])]
            raise UserError(f"Sample {empty} has no target at any of its tokens; leave it out.")
        known = self.y[has_target]
        if self.target == "tags" and len(known) and not 0 <= int(known.min()) <= int(known.max()) < len(self.classes):
            raise UserError(
                f"y runs from {int(known.min())} to {int(known.max())}, but classes has {len(self.classes)} tags; give "
                "indices of these, and -100 where there is none."
            )

    def _check_columns(self) -> None:
        shape = (len(self.x), len(self.classes))
        if tuple(self.y.shape) != shape or self.y.dtype != torch.float32:
            raise UserError(
                f"y is {self.y.dtype} of shape {tuple(self.y.shape)}, but {self.target} of {shape[1]} "
                f"{NAMED[self.target]} are float32 of shape {shape}; give a column per name."
            )
        fits = (self.y == 0) | (self.y == 1) if self.target == "labels" else self.y.isfinite()
        if not bool(fits.all()):
            row, column = (int(index) for index in (~fits).nonzero()[0])
            raise UserError(
                f"{self.classes[column]} of sample {self.keys[row]} is {float(self.y[row, column])}, but must be "
                f"{'0 or 1' if self.target == 'labels' else 'a finite number'}; correct it or leave the sample out."
            )

    def __len__(self) -> int:
        return len(self.y)

    @property
    def has_positions(self) -> bool:
        """Whether the samples are texts with a target per token."""
        return self.target in ("tags", "text")

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

    def strata(self) -> Tensor:
        """Return the group of each sample within which samples are chosen, int64 of shape ``(n,)``.

        It is the class index; 0 where the target is not a class.
        """
        return self.y if self.target == "class" else torch.zeros(len(self), dtype=torch.int64)

    def counts(self) -> dict[str, int]:
        """Return the number of samples by name: of each class that has any, with each label or tag, or by column."""
        if self.target == "class":
            return {self.classes[c]: int((self.y == c).sum()) for c in self.y.unique().tolist()}
        if self.target == "tags":
            return {name: int((self.y == index).any(1).sum()) for index, name in enumerate(self.classes)}
        per_column = self.y.sum(0) if self.target == "labels" else torch.full((len(self.classes),), len(self))
        return {name: int(count) for name, count in zip(self.classes, per_column.tolist(), strict=True)}

    def described(self) -> list[str]:
        """Return each sample's target as text: its class, labels, tags, number of tokens, or values by column."""
        if self.target == "class":
            return [self.classes[c] for c in self.y.tolist()]
        if self.target == "tags":
            return [" ".join(self.classes[tag] for tag in row if tag != IGNORED) for row in self.y.tolist()]
        if self.target == "text":
            return [f"{count} tokens" for count in (self.y != IGNORED).sum(1).tolist()]
        rows = [list(zip(self.classes, row, strict=True)) for row in self.y.tolist()]
        if self.target == "labels":
            return ["; ".join(name for name, has in row if has) for row in rows]
        return ["; ".join(f"{name}={value:.9g}" for name, value in row) for row in rows]

    def of_classes(self, names: Sequence[str]) -> Samples:
        """Return the samples of some classes; class indices do not change.

        Raises:
            UserError: If the target is not a class, and the names are not those of all its columns or tags.
        """
        if self.target == "tags":
            return self.renumbered(names)
        if self.target != "class":
            self._require_names(names)
            return self
        wanted = torch.tensor([self.classes.index(name) for name in names], dtype=torch.int64)
        return self.take(torch.isin(self.y, wanted).nonzero().squeeze(1))

    def renumbered(self, classes: Sequence[str]) -> Samples:
        """Return the same samples with the class indices, or the columns, of ``classes``, which are matched by name.

        Raises:
            UserError: If a sample's class or tag is not among ``classes``, or the columns have other names.
        """
        if self.target == "text":
            self._require_names(classes)
            return self
        if self.target not in ("class", "tags"):
            self._require_names(classes)
            columns = [self.classes.index(name) for name in classes]
            return replace(self, y=self.y[:, columns], classes=tuple(classes))
        missing = sorted({self.classes[int(c)] for c in self.y.unique() if c != IGNORED} - set(classes))
        if missing:
            what = "class" if self.target == "class" else "tag"
            raise UserError(
                f"The samples hold the {what} {missing[0]!r}, but the model or the other data have "
                f"{', '.join(classes)}; use data of the same {NAMED[self.target]}."
            )
        return replace(self, y=moved(self.y, self.classes, classes), classes=tuple(classes))

    def _require_names(self, names: Sequence[str]) -> None:
        if set(names) != set(self.classes):
            named = NAMED[self.target]
            raise UserError(
                f"The samples have the {named} {', '.join(self.classes)}, but the model or the other data have "
                f"{', '.join(names)}; use data of the same {named}."
            )

    def inputs(self) -> Tensor:
        """Return ``x`` as a network takes it; see `as_inputs`."""
        return as_inputs(self.x)


def composed(name: str) -> str:
    """Return a name of a class or label in the one form in which parties compare it: composed Unicode (NFC).

    File systems and programs write ü as one character or as two, which look the same.
    """
    return unicodedata.normalize("NFC", name)


def moved(y: Tensor, classes: Sequence[str], new: Sequence[str]) -> Tensor:
    """Return indices of ``new`` for those of ``classes`` by name, -1 for names that are not in it; -100 stays."""
    index_of = {name: index for index, name in enumerate(new)}
    indices = torch.tensor([index_of.get(name, -1) for name in classes], dtype=torch.int64)
    return indices[y.clamp(min=0)].where(y != IGNORED, IGNORED) if len(indices) else y


def next_tokens(x: Tensor) -> Tensor:
    """Return the token after each token of texts, int64 of shape ``(n, length)``, -100 where there is none.

    Args:
        x: Token ids, ``(n, length)``, -1 after the last token.
    """
    following = torch.cat([x[:, 1:], x.new_full((len(x), 1), NO_TOKEN)], dim=1)
    return following.where(following != NO_TOKEN, IGNORED)


def as_inputs(x: Tensor) -> Tensor:
    """Return inputs as a network takes them: token ids as they are, else float32, uint8 images scaled to [0, 1]."""
    if x.dtype == torch.int64:
        return x
    return x.float() / 255 if x.dtype == torch.uint8 else x.float()


def target_statistics(y: Tensor, names: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each target column, float64 of shape ``(k,)`` each.

    Args:
        y: Values of the training samples, ``(n, k)``.
        names: Names of the columns.

    Raises:
        UserError: If all values of a column are equal, or float32 cannot tell most of them apart beside the largest.
    """
    values = y.double()
    mean, deviation = values.mean(0), values.std(0, correction=0)
    for name, column in zip(names, values.T, strict=True):
        if not bool((column != column[:1]).any()):
            raise UserError(
                f"The target column {name} has the value {float(column[0]):.9g} in all {len(column)} training samples, "
                "so there is nothing to learn; leave it out, or add samples."
            )
        refuse_drowned(name, column)
    return mean, deviation


def refuse_drowned(name: str, column: Tensor) -> None:
    """Refuse a target column of whose values most become equal when it is scaled to a deviation of 1 in float32.

    Args:
        name: Name of the column.
        column: Its values, ``(n,)``.

    Raises:
        UserError: If one value is so large that the others vanish beside it.
    """
    values = column.double().unique()
    scaled = ((values - column.double().mean()) / column.double().std(correction=0)).float()
    if len(values) > 1 and 2 * len(scaled.unique()) < len(values):
        raise UserError(
            f"The target column {name} has values such as {float(values[values.abs().argmax()]):.3g}, beside which "
            "float32 cannot tell most of its other values apart; correct such values, leave their samples out, or "
            "predict the logarithm."
        )


def merge_samples(parts: Sequence[Samples]) -> Samples:
    """Concatenate sets of samples.

    Args:
        parts: The sets, one or more.

    Returns:
        All samples. The classes are those of the first set, followed by further ones; groups stay if all sets have
        them.

    Raises:
        UserError: If there is no set, inputs have different shapes, targets are of different kinds or columns, or two
            samples have the same key.
    """
    if not parts:
        raise UserError("There are no sets to merge; give at least one.")
    shapes = {tuple(part.x.shape[1:]) for part in parts}
    if len(shapes) > 1:
        raise UserError(
            f"The sets hold inputs of the shapes {min(shapes)} and {max(shapes)}; give inputs of one shape."
        )
    kinds = {part.target for part in parts}
    if len(kinds) > 1:
        raise UserError(f"The sets have the targets {min(kinds)} and {max(kinds)}; give sets of one kind of target.")
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
        parts[0].target,
    )
