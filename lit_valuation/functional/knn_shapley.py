"""Shapley values of samples in a nearest-neighbour model (Jia et al. 2019, arXiv 1908.08619, Theorems 1 and 6).

Shape suffixes: B queries of a block, N samples of the pool, D width, C target columns.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lit_core.errors import UserError, check_at_least
from lit_valuation.functional.search import check_widths

_BLOCK = 2**21  # distances in memory at once

#: Maps the samples by nearness, ``(B, N)``, and the rows of their queries to what each sample contributes there,
#: ``(B, N)`` or ``(B, N, C)``.
Read = Callable[[Tensor, Tensor], Tensor]
#: Maps these contributions and the rows of the queries to the values of the samples by nearness, ``(B, N)``.
Value = Callable[[Tensor, Tensor], Tensor]


def knn_shapley(pool_ND: Tensor, pool_y: Tensor, queries_MD: Tensor, query_y: Tensor, k: int = 5) -> Tensor:
    """Return the Shapley value of each sample of a pool in a k-nearest-neighbour classifier of the queries.

    For one query, the utility of a set of samples is the share of its k nearest samples that have the query's class, or
    the mean of that share over labels, each of which is present or not. The value of a sample is its Shapley value in
    that game, averaged over the queries. The values sum to the utility of the whole pool. Where matrix products round
    so much that the order of two samples is uncertain and matters, the query's distances are computed again from
    differences.

    Args:
        pool_ND: Features of the pool, ``(n, width)``.
        pool_y: Class index of each sample of the pool, ``(n,)``, or its labels, 0 or 1, ``(n, labels)``.
        queries_MD: Features of the queries, ``(m, width)``.
        query_y: The same of each query, ``(m,)`` or ``(m, labels)``.
        k: Number of neighbours of the classifier, 1 or more.

    Returns:
        Values, float64 of shape ``(n,)``.

    Raises:
        UserError: If the pool is empty, the widths differ, a feature is not finite or k is below 1.
    """
    rank_N = torch.arange(1, len(pool_ND) + 1, dtype=torch.float64)
    # The difference of the values of the samples at ranks i and i + 1 is (match_i - match_{i+1}) / k · min(k, i) / i.
    step_N = rank_N.clamp(max=k) / (k * rank_N)

    def match(order_BN: Tensor, rows: Tensor) -> Tensor:
        same = (pool_y[order_BN] == query_y[rows][:, None]).double()
        return same if same.ndim == 2 else same.mean(dim=2)

    def value(match_BN: Tensor, rows: Tensor) -> Tensor:
        value_BN = match_BN * step_N  # the value at the last rank; sums of differences are added to the others
        value_BN[:, :-1] -= match_BN[:, 1:] * step_N[:-1]
        return value_BN.flip(1).cumsum(1).flip(1)

    width = pool_y[0].numel() if len(pool_y) else 1
    return _mean_values(pool_ND, queries_MD, k, width, match, value)


def knn_shapley_of_values(pool_ND: Tensor, pool_y: Tensor, queries_MD: Tensor, query_y: Tensor, k: int = 5) -> Tensor:
    """Return the Shapley value of each sample of a pool in a k-nearest-neighbour regression of the queries.

    For one query, the utility of a set of samples is minus the squared error, summed over the columns, of the
    prediction 1/k Σ y over its k nearest samples. A set of fewer predicts as if the missing ones had the value 0, so
    targets should have a mean of 0. The value of a sample is its Shapley value in that game, averaged over the queries.
    The values sum to what the squared error of the whole pool is below that of predicting 0.

    Args:
        pool_ND: Features of the pool, ``(n, width)``.
        pool_y: Targets of the pool, ``(n, columns)``.
        queries_MD: Features of the queries, ``(m, width)``.
        query_y: Targets of the queries, ``(m, columns)``.
        k: Number of neighbours of the regression, 1 or more.

    Returns:
        Values, float64 of shape ``(n,)``.

    Raises:
        UserError: If the pool is empty, the widths differ, a feature is not finite or k is below 1.
    """
    pool_y, query_y = pool_y.double(), query_y.double()
    return _mean_values(
        pool_ND,
        queries_MD,
        k,
        pool_y.shape[1],
        lambda order_BN, rows: pool_y[order_BN],
        lambda y_BNC, rows: _of_regression(y_BNC, query_y[rows], k),
    )


def _of_regression(y_BNC: Tensor, wanted_BC: Tensor, k: int) -> Tensor:
    """Return the values of the samples of each query, whose targets are given by nearness (Theorem 6)."""
    n = y_BNC.shape[1]
    rank_N1 = torch.arange(1, n + 1, dtype=torch.float64)[:, None]
    # The last sample counts only in sets of fewer than k others, of which each has the mean of the others.
    most, last_BC = min(k, n), y_BNC[:, -1]
    mean_BC = y_BNC[:, :-1].sum(dim=1) / max(n - 1, 1)
    error_BC = most * ((most - 1) * mean_BC + last_BC) / k - 2 * most * wanted_BC
    value_BN = torch.empty(y_BNC.shape[:2], dtype=torch.float64)
    value_BN[:, -1] = -(last_BC * error_BC).sum(dim=1) / (k * n)
    if n == 1:
        return value_BN
    # Twice the expected prediction of the sets in which the samples at ranks i and i + 1 can take each other's place:
    # both of them, what is nearer, and what is farther.
    nearer = (rank_N1 - 1).clamp(max=k - 1) / (rank_N1 - 1).clamp(min=1)
    before_BNC = (y_BNC.cumsum(dim=1) - y_BNC) * nearer
    pairs = ((rank_N1 - 1) * (rank_N1 - 2)).clamp(min=1)
    farther = (rank_N1 - 1).clamp(max=k) * (rank_N1 - 2).clamp(min=0, max=k - 1) / pairs
    from_BNC = (y_BNC * farther).flip(1).cumsum(dim=1).flip(1)
    after_BNC = torch.zeros_like(y_BNC)
    after_BNC[:, :-2] = from_BNC[:, 2:]
    after_BNC *= rank_N1 / rank_N1.clamp(max=k)
    twice_BNC = (before_BNC + after_BNC + y_BNC)[:, :-1] + y_BNC[:, 1:]
    step_N1 = (rank_N1.clamp(max=k) / (k * rank_N1))[:-1]
    value_BN[:, :-1] = ((y_BNC.diff(dim=1) * step_N1) * (twice_BNC / k - 2 * wanted_BC[:, None])).sum(dim=2)
    return value_BN.flip(1).cumsum(dim=1).flip(1)


def _mean_values(pool_ND: Tensor, queries_MD: Tensor, k: int, width: int, read: Read, value: Value) -> Tensor:
    """Return the values of the samples, averaged over the queries.

    Args:
        pool_ND: Features of the pool.
        queries_MD: Features of the queries.
        k: Number of neighbours.
        width: Number of targets of a sample, for the size of blocks.
        read: Returns what samples contribute; their order matters only where that differs.
        value: Returns their values.
    """
    check_at_least(1, k=k)
    if not len(pool_ND) or not len(queries_MD):
        raise UserError("The pool or the queries are empty; a sample's value needs both.")
    check_widths(queries_MD, pool_ND)
    n = len(pool_ND)
    pool_ND, queries_MD = pool_ND.double(), queries_MD.double()
    centre_D = pool_ND.mean(dim=0)  # rows far from 0 for their spread would lose it to rounding
    centred_ND = pool_ND - centre_D
    pool_squares_N = centred_ND.square().sum(dim=1)
    values_N = torch.zeros(n, dtype=torch.float64)
    for rows in torch.arange(len(queries_MD)).split(max(1, _BLOCK // (n * width))):
        centred_BD = queries_MD[rows] - centre_D
        # squared distance minus a constant
        nearness_BN, order_BN = torch.addmm(pool_squares_N, centred_BD, centred_ND.T, alpha=-2).sort(dim=1, stable=True)
        error_B1 = _error(pool_ND.shape[1]) * (pool_squares_N.max() + centred_BD.square().sum(dim=1, keepdim=True))
        read_BN = read(order_BN, rows)
        differ_BN = read_BN.diff(dim=1) != 0
        differ_BN = differ_BN if differ_BN.ndim == 2 else differ_BN.any(dim=2)
        unsure_B = ((nearness_BN.diff(dim=1) <= 2 * error_B1) & differ_BN).any(dim=1)
        if bool(unsure_B.any()):  # rounding may have changed an order that counts
            for row in unsure_B.nonzero().squeeze(1).tolist():
                order_BN[row] = (pool_ND - queries_MD[rows[row]]).square_().sum(dim=1).argsort(stable=True)
            read_BN = read(order_BN, rows)
        values_N.index_add_(0, order_BN.flatten(), value(read_BN, rows).flatten())
    return values_N / len(queries_MD)


def _error(width: int) -> float:
    """Return the largest error of |x|² - 2 x·q, as a multiple of |x|² + |q|², in float64."""
    return (2 * width + 24) * 2.0**-53
