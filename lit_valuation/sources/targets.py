"""The targets of a user's table: a column of classes or of lists of labels, or columns of 0 and 1 or of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_core.errors import UserError
from lit_valuation.samples import Samples, Target, composed, refuse_drowned
from lit_valuation.sources.base import label_of, number_of, to_samples
from lit_valuation.sources.rows import cell_of

#: Share of a column's deviation that float32 may lose.
_LOST = 0.001
#: Entries of lists that tell of each label whether a sample has it.
_BITS = ({"0", "1"}, {"True", "False"})


@dataclass(frozen=True)
class TargetColumns:
    """Which columns or keys of a table hold the targets.

    Args:
        label: Column of the classes, or of lists of labels; not used where others are named.
        labels: Columns of 0 and 1, one per label; None if there are none.
        values: Columns of numbers; None if there are none.

    Raises:
        UserError: If both labels and values are named, a list is empty or names a column twice.
    """

    label: str
    labels: list[str] | None
    values: list[str] | None

    def __post_init__(self) -> None:
        if self.labels is not None and self.values is not None:
            raise UserError(
                f"labels is {', '.join(self.labels)} and values is {', '.join(self.values)}, but samples have one kind "
                "of target; leave out one of them."
            )
        for name, columns in (("labels", self.labels), ("values", self.values)):
            if columns is not None and (not columns or len(set(columns)) < len(columns)):
                raise UserError(f"{name} is {columns}, but must name one or more different columns; correct it.")

    @property
    def columns(self) -> list[str]:
        """The columns that hold the targets."""
        return self.values or self.labels or [self.label]

    def check_inputs(self, columns: Sequence[str]) -> None:
        """Refuse inputs among which is a target, which a model would only have to copy.

        Args:
            columns: Columns or keys of the inputs, as the user names them.

        Raises:
            UserError: If one is a target, or is named twice.
        """
        for column in columns:
            if column in self.columns:
                raise UserError(f"The column {column} is named as an input and as a target; leave it out of one.")
        if len(set(columns)) < len(columns):
            raise UserError(f"columns is {', '.join(columns)}, but must name different columns; correct it.")

    def facts(self) -> dict[str, Any]:
        """Return the further arguments where they are given; sources without them are described as before."""
        return {name: given for name, given in (("labels", self.labels), ("values", self.values)) if given is not None}

    def read(self, row: Mapping[str, Any], where: str) -> Any:
        """Return the target of a row: the name of its class, its labels as a list of names, or its numbers by column.

        Args:
            row: The cells by column.
            where: File and line, for the message.

        Raises:
            UserError: If a cell is missing, empty, not a number, or not 0 or 1. The message names the place.
        """
        if self.values is None and self.labels is None:
            return _named(cell_of(row, self.label, where), f"{where}, column {self.label}")
        numbers = {
            name: _number(cell_of(row, name, where), f"{where}, column {name}", self.labels is not None)
            for name in self.columns
        }
        return numbers if self.values is not None else [name for name, number in numbers.items() if number]

    def samples(
        self, name: str, x: Tensor | np.ndarray, targets: Sequence[Any], groups: Sequence[str] | None
    ) -> Samples:
        """Return the samples of all rows.

        Args:
            name: Name of the source, with which the keys begin.
            x: Inputs, ``(n, ...)``.
            targets: Target of each row, as `read` returns it.
            groups: Group of each row; None if there are no groups.

        Raises:
            UserError: If some rows have a class and others a list of labels, or classes are measured numbers.
        """
        if self.values is not None:
            return with_columns(
                name, x, [[row[one] for one in self.values] for row in targets], self.values, "values", groups
            )
        lists = [isinstance(target, list) for target in targets]
        if not any(lists):
            return to_samples(name, x, targets, groups)
        if not all(lists):
            raise UserError(
                f"The column {self.label} of the source {name} holds lists and single names; make all of them lists."
            )
        if self.labels is None and any(all(set(row) == bits for row in targets) for bits in _BITS):
            raise UserError(f"The column {self.label} of the source {name} {_multi_hot(targets[0])}")
        targets = [list(map(composed, row)) for row in targets]
        names = [composed(one) for one in self.labels or ()] or sorted({label for row in targets for label in row})
        rows = [[float(label in row) for label in names] for row in targets]
        return with_columns(name, x, rows, names, "labels", groups)


def with_columns(
    name: str,
    x: Tensor | np.ndarray,
    rows: Any,
    columns: Sequence[str],
    target: Target,
    groups: Sequence[str] | None = None,
) -> Samples:
    """Return samples with several labels or with numbers as targets.

    Args:
        name: Name of the source, with which the keys begin.
        x: Inputs, ``(n, ...)``; inputs other than uint8 become float32.
        rows: Targets, ``(n, k)``.
        columns: Names of the k labels or target columns.
        target: ``labels`` or ``values``.
        groups: Group of each sample; None if there are no groups.

    Raises:
        UserError: If two columns have one name, or differences of values are lost in float32.
    """
    columns = [composed(column) for column in columns]
    if len(set(columns)) < len(columns):
        raise UserError(f"The source {name} has the columns {', '.join(columns)}; give each a name of its own.")
    _refuse_rounding(name, np.asarray(rows, dtype=np.float64), columns)
    y = torch.from_numpy(np.asarray(rows, dtype=np.float32))
    x = torch.from_numpy(np.array(x)) if isinstance(x, np.ndarray) else x
    return Samples(
        x if x.dtype == torch.uint8 else x.float(),
        y,
        tuple(columns),
        tuple(f"{name}-{index:07d}" for index in range(len(y))),
        None if groups is None else tuple(groups),
        target,
    )


def _refuse_rounding(name: str, rows: np.ndarray, columns: Sequence[str]) -> None:
    """Refuse values that float32 cannot tell apart, such as times in seconds since 1970, or beside an outlier."""
    lost, spread = (rows - rows.astype(np.float32)).std(0), (rows - rows[:1]).std(0)
    for column, gap, deviation, first in zip(columns, lost, spread, rows[0], strict=True):
        if deviation > 0 and gap > _LOST * deviation:
            raise UserError(
                f"The target column {column} of the source {name} has values such as {first:.17g} with a deviation of "
                f"{deviation:.3g}, which float32 cannot tell apart; subtract a fixed number from all of them."
            )
    for column, values in zip(columns, torch.tensor(rows).T, strict=True):
        refuse_drowned(column, values)


def _named(cell: Any, where: str) -> str | list[str]:
    """Return the class that a cell names, or the labels that it lists."""
    if not isinstance(cell, list | tuple | np.ndarray):
        return label_of(cell, where)
    names = [label_of(name, where) for name in cell]
    if len(set(names)) < len(names):
        if any(set(names) <= bits for bits in _BITS):
            raise UserError(f"{where} {_multi_hot(names)}")
        raise UserError(f"{where}: {cell!r} names a label twice; correct it.")
    return names


def _multi_hot(names: Sequence[str]) -> str:
    return (
        f"holds lists such as [{', '.join(names)}], which tell of each label whether a sample has it, but must hold "
        "the names of the labels that it has; make columns of 0 and 1 of them, and name these in `labels`."
    )


def _number(cell: Any, where: str, binary: bool) -> float:
    remedy, what = "correct it or remove the row", "a finite float32"
    if binary:
        what = "0 or 1, which tell whether a sample has the label"
    number = number_of(cell, where, remedy, what)
    if binary and number not in (0, 1):
        raise UserError(f"{where}: {cell!r} is not {what}; {remedy}.")
    return number
