"""What every source is: named labelled samples with a licence and an origin."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_core.errors import UserError
from lit_valuation.samples import Samples

#: The largest number of a table, whose cells become float32.
LARGEST = float(np.finfo(np.float32).max)


class LabelledSource(ABC):
    """Labelled samples of one origin, which ``prepare`` divides among parties.

    To add a source, derive from this class, export it from ``lit_valuation.sources``, and write its YAML in
    ``configs/valuation/prepare`` and its test.

    Attributes:
        name: Name of the source; the keys of its samples begin with it.
        licence: Licence of the data.
        origin: Where the data come from.
        input: What a sample is: ``image``, ``table`` or ``embedding``.
        columns: Names of a table's columns; None where there are none.
    """

    name: str
    licence: str
    origin: str
    input: str
    columns: tuple[str, ...] | None = None

    @abstractmethod
    def samples(self) -> Samples:
        """Return all samples, always in the same order.

        Raises:
            UserError: If something is missing or malformed; one sentence says what, and the ways out.
        """

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Return what the samples depend on: arguments, versions and hashes, as plain values. Quick to compute."""

    def describe(self) -> dict[str, Any]:
        """Return class, name, licence, origin and facts as plain values."""
        return {
            "class": type(self).__name__,
            "name": self.name,
            "licence": self.licence,
            "origin": self.origin,
            "facts": self.facts(),
        }


def to_samples(
    name: str,
    x: Tensor | np.ndarray,
    labels: Sequence[Any],
    groups: Sequence[Any] | None = None,
    classes: Sequence[str] | None = None,
) -> Samples:
    """Make samples whose keys are numbers behind the source's name.

    Args:
        name: Name of the source.
        x: Inputs, of shape ``(n, ...)``.
        labels: Name of each sample's class.
        groups: Name of each sample's group; None where there are none.
        classes: Names of the classes by number; None takes those of the labels in the order of the alphabet.

    Returns:
        The samples; numbers of a table become float32.
    """
    named = [str(label) for label in labels]
    order = tuple(classes) if classes is not None else tuple(sorted(set(named)))
    number = {label: place for place, label in enumerate(order)}
    x = torch.from_numpy(np.array(x)) if isinstance(x, np.ndarray) else x
    return Samples(
        x if x.dtype == torch.uint8 else x.float(),
        torch.tensor([number[label] for label in named], dtype=torch.int64),
        order,
        tuple(f"{name}-{place:07d}" for place in range(len(named))),
        None if groups is None else tuple(str(group) for group in groups),
    )


def check_name(name: str) -> str:
    """Return the name that a user gave to a source.

    Raises:
        UserError: If it cannot begin the names of files.
    """
    if not name or PurePath(name).name != name or "." in name or "\\" in name:
        raise UserError(f"A source is named {name!r}, but files are named by it; use letters, digits, - and _.")
    return name
