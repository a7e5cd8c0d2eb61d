"""Shapley values of samples in a nearest-neighbour classifier (Jia et al. 2019, arXiv 1908.08619, Theorem 1).

Shape suffixes: B queries of a block, N samples of the pool, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lit_core.errors import UserError, check_at_least
from lit_valuation.functional.search import check_widths

_BLOCK = 2**21  # distances in memory at once


def knn_shapley(pool_ND: Tensor, pool_y: Tensor, queries_MD: Tensor, query_y: Tensor, k: int = 5) -> Tensor:
    """Return the Shapley value of each sample of a pool in a k-nearest-neighbour classifier of the queries.

    For one query, the utility of a set of samples is the share of its k nearest samples that have the query's class.
    The value of a sample is its Shapley value in that game, averaged over the queries. The values sum to the utility of
    the whole pool. Where matrix products round so much that the order of two samples is uncertain and matters, the
    query's distances are computed again from differences.

    Args:
        pool_ND: Features of the pool, ``(n, width)``.
        pool_y: Class index of each sample of the pool, ``(n,)``.
        queries_MD: Features of the queries, ``(m, width)``.
        query_y: Class index of each query, ``(m,)``.
        k: Number of neighbours of the classifier, 1 or more.

    Returns:
        Values, float64 of shape ``(n,)``.

    Raises:
        UserError: If the pool is empty, the widths differ, a feature is not finite or k is below 1.
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
    rank_N = torch.arange(1, n + 1, dtype=torch.float64)
    # The difference of the values of the samples at ranks i and i + 1 is (match_i - match_{i+1}) / k · min(k, i) / i.
    step_N = rank_N.clamp(max=k) / (k * rank_N)
    values_N = torch.zeros(n, dtype=torch.float64)
    rows = max(1, _BLOCK // n)
    for block_BD, block_y in zip(queries_MD.split(rows), query_y.split(rows), strict=True):
        centred_BD = block_BD - centre_D
        # squared distance minus a constant
        nearness_BN, order_BN = torch.addmm(pool_squares_N, centred_BD, centred_ND.T, alpha=-2).sort(dim=1, stable=True)
        match_BN = (pool_y[order_BN] == block_y[:, None]).double()
        error_B1 = _error(pool_ND.shape[1]) * (pool_squares_N.max() + centred_BD.square().sum(dim=1, keepdim=True))
        unsure_B = ((nearness_BN.diff(dim=1) <= 2 * error_B1) & (match_BN.diff(dim=1) != 0)).any(dim=1)
        for row in unsure_B.nonzero().squeeze(1).tolist():  # rounding may have changed an order that counts
            order_BN[row] = (pool_ND - block_BD[row]).square_().sum(dim=1).argsort(stable=True)
            match_BN[row] = (pool_y[order_BN[row]] == block_y[row]).double()
        shapley_BN = match_BN * step_N  # the value at the last rank; sums of differences are added to the others
        shapley_BN[:, :-1] -= match_BN[:, 1:] * step_N[:-1]
        shapley_BN = shapley_BN.flip(1).cumsum(1).flip(1)
        values_N.index_add_(0, order_BN.flatten(), shapley_BN.flatten())
    return values_N / len(queries_MD)


def _error(width: int) -> float:
    """Return the largest error of |x|² - 2 x·q, as a multiple of |x|² + |q|², in float64."""
    return (2 * width + 24) * 2.0**-53
