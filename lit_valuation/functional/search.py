"""Exact nearest-neighbour search, and orders of samples by the votes of queries for their neighbours.

Both voting rules are those of Sarwar et al. 2024 (arXiv 2410.08432).

Shape suffixes: M queries, N samples of the pool, D width, K neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from lightning_utilities.core.imports import RequirementCache
from torch import Tensor

from lit_core.errors import UserError

Backend = Literal["exact", "faiss"]

_QUERIES = 256  # queries per block
_POOL = 2048  # samples per block
_SPARE = 8  # extra neighbours, because matrix products round
_REMEASURED = 2**22  # numbers in memory at once when distances are computed again


def nearest(queries_MD: Tensor, pool_ND: Tensor, k: int, backend: Backend = "exact") -> tuple[Tensor, Tensor]:
    """Find the k nearest samples of a pool for each query, by Euclidean distance.

    Neighbours are found block by block with matrix products, or by faiss. Their distances are then computed again,
    without the rounding error of the products. Of samples at the same distance the lower index comes first.

    Args:
        queries_MD: Features of the queries, ``(m, width)``.
        pool_ND: Features of the pool, ``(n, width)``.
        k: Number of neighbours of each query, from 1 to n.
        backend: ``exact`` uses matrix products, with memory for one block; ``faiss`` uses faiss's flat index.

    Returns:
        Distances in ascending order, float32 of shape ``(m, k)``, and indices of the samples, int64 of the same shape.

    Raises:
        UserError: If the widths differ, k is out of range, a feature is not finite, or faiss is not installed.
    """
    check_widths(queries_MD, pool_ND)
    n = len(pool_ND)
    if not 1 <= k <= n:
        raise UserError(f"k is {k}, but must be from 1 to the {n} samples of the pool.")
    search = _by_faiss if backend == "faiss" else _by_products
    distances, indices = [], []
    with torch.no_grad():
        for block_BD, candidates_BK in search(queries_MD.float(), pool_ND.float(), min(k + _SPARE, n)):
            rows = max(1, _REMEASURED // (candidates_BK.shape[1] * max(1, pool_ND.shape[1])))
            for part_BD, part_BK in zip(block_BD.split(rows), candidates_BK.split(rows), strict=True):
                part_BK = part_BK.sort(dim=1).values
                gaps_BKD = pool_ND[part_BK].double() - part_BD.double()[:, None]
                distances_BK = gaps_BKD.square_().sum(dim=2).sqrt_().float()
                order_BK = distances_BK.argsort(dim=1, stable=True)[:, :k]
                distances.append(distances_BK.gather(1, order_BK))
                indices.append(part_BK.gather(1, order_BK))
    return torch.cat(distances), torch.cat(indices)


def check_widths(queries_MD: Tensor, pool_ND: Tensor) -> None:
    """Check that the features of queries and pool can be compared.

    Raises:
        UserError: If the widths differ or a feature is not finite.
    """
    if queries_MD.ndim != 2 or pool_ND.ndim != 2 or queries_MD.shape[1] != pool_ND.shape[1]:
        raise UserError(
            f"The queries' features have the shape {tuple(queries_MD.shape)} and the pool's {tuple(pool_ND.shape)}, "
            "but both must have rows of one width; use the same encoder for both."
        )
    for name, features in (("queries", queries_MD), ("pool", pool_ND)):
        finite = torch.isfinite(features.sum(dim=1))  # by row, without a copy of all features
        if not finite.all():
            raise UserError(
                f"The features of sample {int((~finite).nonzero()[0])} of the {name} are not finite; leave it out."
            )


def veto_order(distances_MK: Tensor, indices_MK: Tensor, allowed_MK: Tensor) -> Tensor:
    """Return the order of the top-k-veto rule, in which the queries take turns to name their nearest neighbours.

    First every query names its nearest allowed sample, the closest pair first, then every query its second nearest, and
    so on. Samples that were named before are skipped. So each prefix of the order covers the queries.

    Args:
        distances_MK: Ascending distances, as `nearest` returns them.
        indices_MK: Indices of the neighbours.
        allowed_MK: Whether a query may name that neighbour.

    Returns:
        Indices of the named samples without repetition, int64, in the order in which they were first named.
    """
    rank_MK = allowed_MK.long().cumsum(dim=1)
    query_MK = torch.arange(len(indices_MK))[:, None].expand_as(indices_MK)
    keys = (rank_MK, distances_MK, query_MK)
    order = _lexicographic(*(key[allowed_MK] for key in keys))
    return _first_occurrences(indices_MK[allowed_MK][order])


def borda_order(indices_MK: Tensor, allowed_MK: Tensor) -> Tensor:
    """Return the order of the Borda count, in which each query gives points to its allowed neighbours.

    The r-th of p neighbours of a query, counted from 0, gets p - 1 - r points.

    Args:
        indices_MK: Indices of the neighbours, the nearest first.
        allowed_MK: Whether a query may vote for that neighbour.

    Returns:
        Indices of the samples with votes, int64, the most points first; of equal points the lower index first.
    """
    points_MK = allowed_MK.sum(dim=1, keepdim=True) - allowed_MK.long().cumsum(dim=1)
    candidates, inverse = indices_MK[allowed_MK].unique(return_inverse=True)
    points = torch.zeros(len(candidates), dtype=torch.int64).index_add_(0, inverse, points_MK[allowed_MK])
    return candidates[points.argsort(descending=True, stable=True)]


def settle_claims(orders: Mapping[int, Tensor]) -> dict[int, Tensor]:
    """Give each sample that several classes want to the class that ranks it highest, of equal ranks to the lower class.

    Args:
        orders: Indices of the samples that each class wants, the most wanted first.

    Returns:
        The orders, in which each sample occurs for one class only.
    """
    claims = [(rank, c, index) for c, order in orders.items() for rank, index in enumerate(order.tolist())]
    owner: dict[int, int] = {}
    for _, c, index in sorted(claims):
        owner.setdefault(index, c)
    return {
        c: order[torch.tensor([owner[index] == c for index in order.tolist()], dtype=torch.bool)]
        for c, order in orders.items()
    }


def _by_products(queries_MD: Tensor, pool_ND: Tensor, k: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield blocks of queries with the indices of their k nearest samples; ties go to the lower index.

    The bits of a non-negative float, read as an integer, have the same order as the float. A key holds the bits of the
    squared distance, followed by the sample's index, so no two keys are equal.
    """
    squares_N = torch.linalg.vector_norm(pool_ND, dim=1).square()
    for block_BD in queries_MD.split(_QUERIES):
        best_BK = torch.empty(len(block_BD), 0, dtype=torch.int64)
        squares_B1 = torch.linalg.vector_norm(block_BD, dim=1, keepdim=True).square()
        for start in range(0, len(pool_ND), _POOL):
            part_ND = pool_ND[start : start + _POOL]
            squared_BN = torch.addmm(squares_N[start : start + _POOL], block_BD, part_ND.T, alpha=-2)
            bits_BN = squared_BN.add_(squares_B1).clamp_(min=0).view(torch.int32).long()
            keys_BN = bits_BN.bitwise_left_shift_(32).add_(torch.arange(start, start + len(part_ND)))
            best_BK = torch.cat([best_BK, keys_BN], dim=1)
            best_BK = best_BK.topk(min(k, best_BK.shape[1]), dim=1, largest=False, sorted=False).values
        yield block_BD, best_BK & 0xFFFFFFFF


def _by_faiss(queries_MD: Tensor, pool_ND: Tensor, k: int) -> Iterator[tuple[Tensor, Tensor]]:
    if not RequirementCache("faiss-cpu"):
        raise UserError('backend: faiss needs `faiss-cpu`; install it with `pip install "lit-shift[faiss]"`.')
    import faiss

    index = faiss.IndexFlatL2(pool_ND.shape[1])
    index.add(pool_ND.contiguous().numpy())
    for block_BD in queries_MD.split(_QUERIES):
        yield block_BD, torch.from_numpy(index.search(block_BD.contiguous().numpy(), k)[1])


def _lexicographic(*keys: Tensor) -> Tensor:
    """Return the permutation that sorts by the first key, ties by the second, and so on."""
    order = torch.arange(len(keys[0]))
    for key in reversed(keys):
        order = order[key[order].argsort(stable=True)]
    return order


def _first_occurrences(indices: Tensor) -> Tensor:
    unique, inverse = indices.unique(return_inverse=True)
    first = torch.full((len(unique),), len(indices)).scatter_reduce_(
        0, inverse, torch.arange(len(indices)), reduce="amin"
    )
    return indices[first.sort().values]
