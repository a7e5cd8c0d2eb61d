"""`OneValue`, a base of metrics of several values, of which one alone can be logged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lit_core.errors import UserError, did_you_mean


class OneValue(Metric):
    """Base of metrics that compute several values, or one of them as a scalar that Lightning's ``log`` takes.

    In a MetricCollection, metrics of the same class share their state, so each value costs nothing more.

    Args:
        value: Name of the only value to compute; None computes all.
        names: Names of all values.
        others: Arguments of the next base class.

    Raises:
        UserError: If there is no value of this name.
    """

    def __init__(self, value: str | None, names: Sequence[str], **others: Any) -> None:
        super().__init__(**others)
        if value is not None and value not in names:
            raise UserError(
                f"`value` is {value!r}, which {type(self).__name__} does not compute;"
                + (did_you_mean(value, names) or f" it computes {', '.join(names)}.")
            )
        self.value = value

    def selected(self, values: Mapping[str, Tensor]) -> Any:
        """Return the value that was chosen, NaN where it is not defined; all values if none was chosen."""
        return values if self.value is None else values.get(self.value, torch.tensor(torch.nan))
