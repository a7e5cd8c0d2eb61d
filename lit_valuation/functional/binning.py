"""How far the rows of a table are from queries, counted in bins that fit the columns (Sarwar et al. 2024).

Shape suffixes: M queries, N rows, F columns.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lit_valuation.functional.search import check_widths

Bins = Literal["owner", "queries"]

_TRIED = (200, 100, 50, 20, 10, 5)
_FILLED = 6
_NARROW, _WIDE = 5, 50  # times that the owner's range may exceed the queries'


def binning_distance(rows_NF: Tensor, queries_MF: Tensor, bins: Bins = "queries") -> Tensor:
    """Sum over the columns the bins between a row and the nearest query, each column by itself.

    ``owner`` (the released code's ``do``) bins by the owner's column. ``queries`` (``dharddo``) bins as finely as the
    queries need: with the width of the queries' own best bins where the owner's range is at most 5 times theirs, with
    their whole range where it is at most 50 times, otherwise, and where all queries have one value, as ``owner``.
    Bins begin at the owner's smallest value and go on beyond its range.

    Args:
        rows_NF: The owner's rows, ``(n, columns)``.
        queries_MF: The queries, ``(m, columns)``.
        bins: Whose values the bins are fitted to.

    Returns:
        Distances in bins, int64 of shape ``(n,)``.

    Raises:
        UserError: If the numbers of columns differ or a value is not finite.
    """
    check_widths(queries_MF, rows_NF)
    distance_N = torch.zeros(len(rows_NF), dtype=torch.int64)
    for rows_N, queries_M in zip(rows_NF.double().T, queries_MF.double().T, strict=True):
        width = _width(rows_N, queries_M, bins)
        if width > 0:  # otherwise the owner's rows are all alike
            start = rows_N.min()
            row_bins_N = _digitised(rows_N, start, width)
            filled = _digitised(queries_M, start, width).unique()
            above_N = torch.searchsorted(filled, row_bins_N).clamp(max=len(filled) - 1)
            below_N = (above_N - 1).clamp(min=0)
            distance_N += torch.minimum((filled[above_N] - row_bins_N).abs(), (filled[below_N] - row_bins_N).abs())
    return distance_N


def best_width(values_N: Tensor) -> float:
    """Return the width of the finest of 200, 100, 50, 20, 10 or 5 equal bins of which at most 6 are filled.

    Args:
        values_N: Values of a column.

    Returns:
        The width; 0 where all values are equal.
    """
    start, extent = values_N.min(), _range(values_N)
    for count in _TRIED:
        if extent > 0 and len(_digitised(values_N, start, extent / count).unique()) <= _FILLED:
            return extent / count
    return 0.0


def _width(rows_N: Tensor, queries_M: Tensor, bins: Bins) -> float:
    asked, owned = _range(queries_M), _range(rows_N)
    if bins == "queries" and owned > 0 and asked > 0:
        if owned <= _NARROW * asked:
            return best_width(queries_M)
        if owned <= _WIDE * asked:
            return asked
    return best_width(rows_N)


def _range(values: Tensor) -> float:
    return float(values.max() - values.min())


def _digitised(values: Tensor, start: Tensor, width: float) -> Tensor:
    return torch.floor((values - start) / width).long()
