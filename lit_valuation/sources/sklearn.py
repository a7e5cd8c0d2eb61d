"""Small data sets that are part of scikit-learn and need no download."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, Literal

from lightning_utilities.core.imports import RequirementCache

from lit_core.errors import UserError
from lit_valuation.samples import Samples
from lit_valuation.sources.base import LabelledSource, to_samples

_LICENCE = "BSD-3-Clause, with scikit-learn; from the UCI repository"


class Digits(LabelledSource):
    """1,797 handwritten digits of 8 x 8 grey pixels, 10 classes.

    The grey levels 0 to 16 are multiplied by 15 to use the range of a byte.
    """

    name, licence, input = "digits", _LICENCE, "image"
    origin = "scikit-learn's load_digits"

    def samples(self) -> Samples:
        """Return the digits."""
        data = _datasets(self).load_digits()
        return to_samples(self.name, (data.images * 15).astype("uint8")[:, None], data.target)

    def facts(self) -> dict[str, Any]:
        """Return scikit-learn's version."""
        return _facts(self)


class SklearnTable(LabelledSource):
    """A small table of measurements: tumours (569 x 30, 2 classes), wines (178 x 13, 3) or irises (150 x 4, 3).

    Args:
        table: Name of the table.
    """

    licence, input = _LICENCE, "table"

    def __init__(self, table: Literal["breast_cancer", "wine", "iris"]) -> None:
        self.name = table
        self.origin = f"scikit-learn's load_{table}"

    def samples(self) -> Samples:
        """Return the rows."""
        data = getattr(_datasets(self), f"load_{self.name}")()
        self.columns = tuple(data.feature_names)
        return to_samples(self.name, data.data, data.target_names[data.target], classes=data.target_names.tolist())

    def facts(self) -> dict[str, Any]:
        """Return scikit-learn's version."""
        return _facts(self)


def _datasets(source: LabelledSource) -> Any:
    if not RequirementCache("scikit-learn>=1.4"):
        raise UserError(
            f'The source {source.name} needs `scikit-learn`; install it with `pip install "lit-shift[valuation]"`.'
        )
    from sklearn import datasets

    return datasets


def _facts(source: LabelledSource) -> dict[str, Any]:
    _datasets(source)
    return {"scikit-learn": version("scikit-learn")}
