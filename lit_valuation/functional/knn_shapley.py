"""Shapley values of a nearest-neighbour classifier in closed form (Jia et al. 2019, arXiv 1908.08619, Theorem 1).

Shape suffixes: B queries of a block, N samples of the pool, D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lit_core.errors import UserError
from lit_valuation.functional.search import check_widths

_BLOCK = 2**21  # distances held at once


def knn_shapley(pool_ND: Tensor, pool_y: Tensor, queries_MD: Tensor, query_y: Tensor, k: int = 5) -> Tensor:
    """Value each sample of a pool by what it adds to a k-nearest-neighbour classifier of the queries.

    A coalition is worth, for one query, the number of its k nearest members that have the query's class, over k; the
    value of a sample is its Shapley value in that game, averaged over the queries. The values sum to what the
    whole pool is worth.

    Args:
        pool_ND: Features of the pool, ``(n, width)``.
        pool_y: Class of each sample of the pool.
        queries_MD: Features of the queries, ``(m, width)``.
        query_y: Class of each query.
        k: Neighbours that the classifier asks, 1 or more.

    Returns:
        Values, float64 of shape ``(n,)``.

    Raises:
        UserError: If the pool is empty, the widths differ, a feature is not finite or k is below 1.
    """
    if k < 1:
        raise UserError(f"k is {k}, but must be 1 or more; ask at least one neighbour.")
    if not len(pool_ND) or not len(queries_MD):
        raise UserError("The pool or the queries are empty; a sample's value needs both.")
    check_widths(queries_MD, pool_ND)
    n = len(pool_ND)
    pool_ND, queries_MD = pool_ND.double(), queries_MD.double()
    pool_squares_N = pool_ND.square().sum(dim=1)
    rank_N = torch.arange(1, n + 1, dtype=torch.float64)
    # The difference of the values of the samples at ranks i and i + 1 is (match_i - match_{i+1}) / k · min(k, i) / i.
    step_N = rank_N.clamp(max=k) / (k * rank_N)
    values_N = torch.zeros(n, dtype=torch.float64)
    rows = max(1, _BLOCK // n)
    for block_BD, block_y in zip(queries_MD.split(rows), query_y.split(rows), strict=True):
        nearness_BN = torch.addmm(pool_squares_N, block_BD, pool_ND.T, alpha=-2)  # squared distance less a constant
        order_BN = nearness_BN.argsort(dim=1, stable=True)
        match_BN = (pool_y[order_BN] == block_y[:, None]).double()
        shapley_BN = match_BN * step_N  # right at the last rank; before it, a sum of differences is added
        shapley_BN[:, :-1] -= match_BN[:, 1:] * step_N[:-1]
        shapley_BN = shapley_BN.flip(1).cumsum(1).flip(1)
        values_N.index_add_(0, order_BN.flatten(), shapley_BN.flatten())
    return values_N / len(queries_MD)
