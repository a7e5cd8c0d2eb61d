"""Exact search for the nearest samples, and how queries vote for what they found.

Both votes are those of Sarwar et al. 2024 (arXiv 2410.08432).

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

_QUERIES = 256  # of one block
_POOL = 2048
_SPARE = 8  # neighbours found beyond k, since products round
_REMEASURED = 2**22  # numbers gathered at once to measure distances


def nearest(queries_MD: Tensor, pool_ND: Tensor, k: int, backend: Backend = "exact") -> tuple[Tensor, Tensor]:
    """Find the k nearest samples of a pool for each query, by Euclidean distance.

    Neighbours are found block by block with matrix products, or by faiss, and then measured again without the
    rounding of the products. Of samples at the same distance the one with the lower number comes first.

    Args:
        queries_MD: Features of the queries, ``(m, width)``.
        pool_ND: Features of the pool, ``(n, width)``.
        k: Neighbours of each query, from 1 to n.
        backend: ``exact`` needs nothing and memory for a block; ``faiss`` searches with faiss's flat index.

    Returns:
        Distances, float32 of shape ``(m, k)``, ascending; numbers of the samples, int64 of the same shape.

    Raises:
        UserError: If the widths differ, k is out of range, a feature is not finite, or faiss is not installed.
    """
    check_widths(queries_MD, pool_ND)
    n = len(pool_ND)
    if not 1 <= k <= n:
        raise UserError(f"k is {k}, but must be from 1 to the {n} samples of the pool.")
    search = _by_faiss if backend == "faiss" else _by_products
    distances, numbers = [], []
    with torch.no_grad():
        for block_BD, found_BK in search(queries_MD.float(), pool_ND.float(), min(k + _SPARE, n)):
            rows = max(1, _REMEASURED // (found_BK.shape[1] * max(1, pool_ND.shape[1])))
            for part_BD, part_BK in zip(block_BD.split(rows), found_BK.split(rows), strict=True):
                part_BK = part_BK.sort(dim=1).values
                gaps_BKD = pool_ND[part_BK].double() - part_BD.double()[:, None]
                distances_BK = gaps_BKD.square_().sum(dim=2).sqrt_().float()
                order_BK = distances_BK.argsort(dim=1, stable=True)[:, :k]
                distances.append(distances_BK.gather(1, order_BK))
                numbers.append(part_BK.gather(1, order_BK))
    return torch.cat(distances), torch.cat(numbers)


def check_widths(queries_MD: Tensor, pool_ND: Tensor) -> None:
    """Refuse features that cannot be compared.

    Raises:
        UserError: If the widths differ or a feature is not finite.
    """
    if queries_MD.ndim != 2 or pool_ND.ndim != 2 or queries_MD.shape[1] != pool_ND.shape[1]:
        raise UserError(
            f"The queries' features have the shape {tuple(queries_MD.shape)} and the pool's {tuple(pool_ND.shape)}, "
            "but both must have rows of one width; use the same encoder for both."
        )
    for name, features in (("queries", queries_MD), ("pool", pool_ND)):
        finite = torch.isfinite(features.sum(dim=1))  # of each row, without a copy of the whole
        if not finite.all():
            raise UserError(
                f"The features of sample {int((~finite).nonzero()[0])} of the {name} are not finite; leave it out."
            )


def veto_order(distances_MK: Tensor, numbers_MK: Tensor, allowed_MK: Tensor) -> Tensor:
    """Let each query name its nearest allowed neighbours in turn: top-k-veto.

    First every query's nearest sample, the closest pair first, then every query's second nearest, and so on; a sample
    that was named before is passed over. So each prefix covers the queries.

    Args:
        distances_MK: Ascending distances, as `nearest` returns them.
        numbers_MK: Numbers of the neighbours.
        allowed_MK: Whether a query may name that neighbour.

    Returns:
        Numbers of the samples named, each once, in the order in which they were.
    """
    rank_MK = allowed_MK.long().cumsum(dim=1)
    query_MK = torch.arange(len(numbers_MK))[:, None].expand_as(numbers_MK)
    keys = (rank_MK, distances_MK, query_MK)
    order = _lexicographic(*(key[allowed_MK] for key in keys))
    return _first_occurrences(numbers_MK[allowed_MK][order])


def borda_order(numbers_MK: Tensor, allowed_MK: Tensor) -> Tensor:
    """Let each query give points to its allowed neighbours, and order these by their points: the Borda count.

    Of p preferences the r-th, counted from 0, gets p - 1 - r points.

    Args:
        numbers_MK: Numbers of the neighbours, the nearest first.
        allowed_MK: Whether a query may vote for that neighbour.

    Returns:
        Numbers of the samples voted for, the one with most points first; of equals the lower number.
    """
    points_MK = allowed_MK.sum(dim=1, keepdim=True) - allowed_MK.long().cumsum(dim=1)
    candidates, place = numbers_MK[allowed_MK].unique(return_inverse=True)
    points = torch.zeros(len(candidates), dtype=torch.int64).index_add_(0, place, points_MK[allowed_MK])
    return candidates[points.argsort(descending=True, stable=True)]


def settle_claims(orders: Mapping[int, Tensor]) -> dict[int, Tensor]:
    """Leave a sample that several classes claim to the class that ranks it best, of equals to the lower class.

    Args:
        orders: Numbers of the samples by class, the most wanted first.

    Returns:
        The same without claims that lost.
    """
    claims = [(rank, c, number) for c, order in orders.items() for rank, number in enumerate(order.tolist())]
    owner: dict[int, int] = {}
    for _, c, number in sorted(claims):
        owner.setdefault(number, c)
    return {
        c: order[torch.tensor([owner[number] == c for number in order.tolist()], dtype=torch.bool)]
        for c, order in orders.items()
    }


def _by_products(queries_MD: Tensor, pool_ND: Tensor, k: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield blocks of queries with the numbers of their k nearest samples; ties go to the lower number.

    A squared distance is not negative, so its bits order as a whole number does; with the sample's number behind them
    no two keys are equal.
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
    """Return the order by the first key, ties by the second, and so on."""
    order = torch.arange(len(keys[0]))
    for key in reversed(keys):
        order = order[key[order].argsort(stable=True)]
    return order


def _first_occurrences(numbers: Tensor) -> Tensor:
    unique, place = numbers.unique(return_inverse=True)
    first = torch.full((len(unique),), len(numbers)).scatter_reduce_(
        0, place, torch.arange(len(numbers)), reduce="amin"
    )
    return numbers[first.sort().values]
