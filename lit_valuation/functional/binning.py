"""Adaptive binning distance between rows of a table and queries (Sarwar et al. 2024).

Shape suffixes: M queries, N rows, F columns.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lit_valuation.functional.search import check_widths

Bins = Literal["owner", "queries"]

_COUNTS = (200, 100, 50, 20, 10, 5)
_MOST_FILLED = 6
_NARROW, _WIDE = 5, 50  # ratios of the owner's range to the queries' range


def binning_distance(rows_NF: Tensor, queries_MF: Tensor, bins: Bins = "queries") -> Tensor:
    """Return the number of bins between each row and the nearest query, summed over columns.

    The nearest query is found for each column separately. The width of a column's bins is

    1. with ``owner`` (``do`` in the released code), the best width for the owner's values;
    2. with ``queries`` (``dharddo``), the best width for the queries' values if the owner's range is at most 5 times
       the queries' range, the queries' range if it is at most 50 times, and otherwise, or if all queries are equal, as
       with ``owner``.

    The first bin begins at the owner's smallest value; queries may lie in bins beyond the owner's range.

    Args:
        rows_NF: The owner's rows, ``(n, columns)``.
        queries_MF: The queries, ``(m, columns)``.
        bins: Values to which the bins are fitted.

    Returns:
        Distances in bins, int64 of shape ``(n,)``.

    Raises:
        UserError: If the numbers of columns differ, or a value is not finite.
    """
    check_widths(queries_MF, rows_NF)
    distance_N = torch.zeros(len(rows_NF), dtype=torch.int64)
    for rows_N, queries_M in zip(rows_NF.double().T, queries_MF.double().T, strict=True):
        width = _width(rows_N, queries_M, bins)
        if width > 0:  # 0 if all rows of the owner are equal
            start = rows_N.min()
            row_bins_N = _bin_index(rows_N, start, width)
            filled = _bin_index(queries_M, start, width).unique()
            above_N = torch.searchsorted(filled, row_bins_N).clamp(max=len(filled) - 1)
            below_N = (above_N - 1).clamp(min=0)
            distance_N += torch.minimum((filled[above_N] - row_bins_N).abs(), (filled[below_N] - row_bins_N).abs())
    return distance_N


def best_width(values_N: Tensor) -> float:
    """Return the width of the most of 200, 100, 50, 20, 10 or 5 equal bins such that at most 6 are not empty.

    Args:
        values_N: Values of a column.

    Returns:
        The width; 0 if all values are equal, or more than 6 bins are not empty each time.
    """
    start, extent = values_N.min(), _range(values_N)
    for count in _COUNTS:
        if extent > 0 and len(_bin_index(values_N, start, extent / count).unique()) <= _MOST_FILLED:
            return extent / count
    return 0.0


def _width(rows_N: Tensor, queries_M: Tensor, bins: Bins) -> float:
    query_range, own_range = _range(queries_M), _range(rows_N)
    if bins == "queries" and own_range > 0 and query_range > 0:
        if own_range <= _NARROW * query_range:
            return best_width(queries_M)
        if own_range <= _WIDE * query_range:
            return query_range
    return best_width(rows_N)


def _range(values: Tensor) -> float:
    return float(values.max() - values.min())


def _bin_index(values: Tensor, start: Tensor, width: float) -> Tensor:
    return torch.floor((values - start) / width).long()
