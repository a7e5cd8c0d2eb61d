"""The base class of sources of labelled samples, and what they share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_core.corpora.described import Described
from lit_core.errors import UserError
from lit_valuation.samples import Samples

#: The largest number that a table may hold: that of float32.
LARGEST = float(np.finfo(np.float32).max)


class LabelledSource(Described):
    """Labelled samples of one origin, which ``divide`` divides among a trainer and owners.

    To add a source, derive from this class, export it from ``lit_valuation.sources``, and write its YAML in
    ``configs/valuation/divide`` and its test.

    Attributes:
        name: Name of the source, with which the keys of its samples begin.
        licence: Licence of the data.
        origin: Where the data come from.
        input: Kind of the inputs: ``image``, ``table`` or ``embedding``.
        columns: Names of a table's columns; None for other inputs.
    """

    input: str
    columns: tuple[str, ...] | None = None

    @abstractmethod
    def samples(self) -> Samples:
        """Return all samples, always in the same order.

        Raises:
            UserError: If something is missing or malformed; one sentence says what, and what to do.
        """


def to_samples(
    name: str,
    x: Tensor | np.ndarray,
    labels: Sequence[Any],
    groups: Sequence[Any] | None = None,
    classes: Sequence[str] | None = None,
) -> Samples:
    """Return samples whose keys are the source's name and the sample's index, such as ``wine-0000003``.

    Args:
        name: Name of the source.
        x: Inputs, of shape ``(n, ...)``.
        labels: Name of each sample's class.
        groups: Name of each sample's group; None if there are no groups.
        classes: Names of the classes, in the order of their indices; None sorts the labels.

    Returns:
        The samples; inputs other than uint8 become float32.
    """
    names = [str(label) for label in labels]
    order = tuple(classes) if classes is not None else tuple(sorted(set(names)))
    class_index = {label: index for index, label in enumerate(order)}
    x = torch.from_numpy(np.array(x)) if isinstance(x, np.ndarray) else x
    return Samples(
        x if x.dtype == torch.uint8 else x.float(),
        torch.tensor([class_index[label] for label in names], dtype=torch.int64),
        order,
        tuple(f"{name}-{index:07d}" for index in range(len(names))),
        None if groups is None else tuple(str(group) for group in groups),
    )


def check_name(name: str) -> str:
    """Return the name of a source after a check.

    Raises:
        UserError: If the name cannot be the beginning of file names.
    """
    if not name or PurePath(name).name != name or "." in name or "\\" in name:
        raise UserError(f"A source is named {name!r}, but file names begin with it; use letters, digits, - and _.")
    return name
