"""The base class of sources of labelled samples, and what they share."""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_core.corpora.described import Described
from lit_core.errors import UserError
from lit_core.lm.tokenizer import Tokenizer
from lit_valuation.encoders import EncoderStamp
from lit_valuation.samples import Samples, composed

#: The largest number that a table may hold: that of float32.
LARGEST = float(np.finfo(np.float32).max)
#: Most different labels that may be numbers with fractions, such as versions.
_MOST_NUMBERS = 20
#: Most samples that a message names.
_NAMED = 5


class LabelledSource(Described):
    """Labelled samples of one origin, which ``prepare`` splits, and ``divide`` divides among a trainer and owners.

    To add a source, derive from this class, export it from ``lit_valuation.sources``, and write its YAML in
    ``configs/valuation/divide``, or ``prepare`` if users bring the data, and its test.

    Attributes:
        name: Name of the source, with which the keys of its samples begin.
        licence: Licence of the data.
        origin: Where the data come from.
        input: Kind of the inputs: ``image``, ``table``, ``embedding`` or ``tokens``.
        columns: Names of a table's columns; None for other inputs.
        vocabulary: What token ids mean, as a name that is equal for equal tokenizers; None for other inputs.
        tokenizer: The tokenizer of the token ids; None if it is not known, and for other inputs.
        places: Where each sample of the last call of `samples` is, such as its file or line; None if that is not known.
    """

    input: str
    columns: tuple[str, ...] | None = None
    vocabulary: str | None = None
    tokenizer: Tokenizer | None = None
    places: tuple[str, ...] | None = None

    @property
    def made_by(self) -> EncoderStamp | None:
        """The encoder that made the inputs if they are embeddings; None if that is not known."""
        encoder = getattr(self, "encoder", None)
        return None if encoder is None else EncoderStamp.of(encoder)

    def meta(self) -> dict[str, Any]:
        """Return what the index of a labelled set tells of its inputs; `samples` must have been called before."""
        columns = {} if self.columns is None else {"columns": list(self.columns)}
        encoder = {} if self.made_by is None else {"encoder": asdict(self.made_by)}
        vocabulary = {} if self.vocabulary is None else {"vocabulary": self.vocabulary}
        return {"input": self.input, **columns, **encoder, **vocabulary}

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

    Raises:
        UserError: If the labels are measured numbers, not names of classes.
    """
    names = [composed(str(label)) for label in labels]
    _refuse_measurements(name, names)
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


def _refuse_measurements(name: str, labels: Sequence[str]) -> None:
    """Refuse labels that are many different numbers with fractions: each would become a class of its own."""
    different, fractions = sorted(set(labels)), list[str]()
    if len(different) > _MOST_NUMBERS:
        with suppress(ValueError, OverflowError):  # of names that are no numbers
            fractions = [label for label in different if not float(label).is_integer()]
    if fractions:
        raise UserError(
            f"The labels of the source {name} are {len(different):,} different numbers, such as {fractions[0]}, but a "
            "label names a class; give another column, divide the numbers into ranges, or, to predict the numbers "
            "themselves, name their column in `values`."
        )


def label_of(cell: Any, where: str) -> str:
    """Return the name of a class or group from a cell of a table.

    Args:
        cell: The cell.
        where: File, line and column, for the message.

    Raises:
        UserError: If it is empty, not a number (NaN), or holds several values.
    """
    if isinstance(cell, Mapping | list | tuple | bytes | np.ndarray):
        raise UserError(f"{where}: the cell is {type(cell).__name__}, but must be a name; name another column.")
    if isinstance(cell, float) and cell.is_integer():
        cell = int(cell)  # 1.0 and 1 name the same class
    name = "" if cell is None else str(cell).strip()
    if not name or name.lower() == "nan":
        raise UserError(f"{where}: the cell is {'NaN' if name else 'empty'}; fill it or remove the row.")
    return name


def number_of(cell: Any, where: str, remedy: str, what: str = "a finite float32") -> float:
    """Return a number from a cell of a table.

    Args:
        cell: The cell.
        where: File, line and column, for the message.
        remedy: What to do, as an imperative.
        what: What the cell must be, for the message.

    Raises:
        UserError: If it is not a finite float32.
    """
    try:
        number = math.nan if isinstance(cell, str) and "_" in cell else float(cell)  # float reads 2020_01 as 202001
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not abs(number) <= LARGEST:  # nor nan
        raise UserError(f"{where}: {cell!r} is not {what}; {remedy}.")
    return number


def name_of(name: str | None, path: Path) -> str:
    """Return the given name of a source after a check, or else one made of the name of its file or folder.

    Raises:
        UserError: If the name cannot be the beginning of file names.
    """
    if name is not None:
        return check_name(name)
    path = path.absolute()
    return re.sub(r"[^\w-]+", "-", path.name if path.is_dir() else path.name.partition(".")[0]).strip("-") or "own"


def refuse_faults(faults: Sequence[str], total: int, what: str) -> None:
    """Refuse samples that cannot be used, all at once.

    Args:
        faults: Each one's place and, in brackets, why.
        total: Number of all samples.
        what: What they are, such as images.

    Raises:
        UserError: If there are any; the message names the first of them.
    """
    if faults:
        further = f"; and {len(faults) - _NAMED:,} more" if len(faults) > _NAMED else ""
        raise UserError(
            f"{len(faults):,} of {total:,} {what} cannot be used: {'; '.join(faults[:_NAMED])}{further}. Repair, "
            "convert or remove them."
        )


def check_name(name: str) -> str:
    """Return the name of a source after a check.

    Raises:
        UserError: If the name cannot be the beginning of file names.
    """
    if not name or PurePath(name).name != name or "." in name or "\\" in name:
        raise UserError(f"A source is named {name!r}, but file names begin with it; use letters, digits, - and _.")
    return name
