"""Exact nearest-neighbour search, and orders of samples by the votes of queries for their neighbours.

Both voting rules are those of Sarwar et al. 2024 (arXiv 2410.08432).

Shape suffixes: M queries, N samples of the pool, D width, K neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import torch
from lightning_utilities.core.imports import RequirementCache
from torch import Tensor

from lit_core.errors import UserError

Backend = Literal["exact", "faiss"]

_QUERIES = 256  # queries per block
_POOL = 2048  # samples per block
_SPARE = 8  # extra neighbours, because matrix products round; and one for each of these many
_REMEASURED = 2**22  # numbers in memory at once when distances are computed again
_SAMPLED = 1024  # rows of the pool whose mean is the centre
_UNIT = 2.0**-24  # largest relative error of one rounding to float32


def nearest(queries_MD: Tensor, pool_ND: Tensor, k: int, backend: Backend = "exact") -> tuple[Tensor, Tensor]:
    """Find the k nearest samples of a pool for each query, by Euclidean distance.

    Candidates are found block by block with matrix products, or by faiss, and their distances are computed again from
    differences in float64. Products round: where all is far from 0 for its spread, rows are centred first. Where the
    bound of the rounding error still allows another sample to be among the k nearest, all such samples are measured. So
    the result is that of measuring everything. Of samples at the same distance in float32 the lower index comes first.

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
    with torch.no_grad(), _full_precision():
        wide = torch.float64 in (queries_MD.dtype, pool_ND.dtype)
        queries_MD, pool_ND = (rows.double() if wide else rows.float() for rows in (queries_MD, pool_ND))
        centre_D = _centre(pool_ND)
        candidates = min(k + _SPARE + k // _SPARE, n)
        for block_BD, candidates_BK, floor_B in search(queries_MD, pool_ND, candidates, centre_D):
            distances_BK, indices_BK = _measured(block_BD, pool_ND, candidates_BK, k)
            # the comparison is false for nan too
            unsure_B = ~(_reach(distances_BK[:, -1]).square() < floor_B)
            if candidates < n and unsure_B.any():
                distances_BK[unsure_B], indices_BK[unsure_B] = _settled(
                    block_BD[unsure_B], pool_ND, distances_BK[unsure_B], centre_D
                )
            distances.append(distances_BK)
            indices.append(indices_BK)
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


@contextmanager
def _full_precision() -> Iterator[None]:
    """Let products of float32 be computed in float32, whatever was set for the training of models."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _centre(pool_ND: Tensor) -> Tensor | None:
    """Return about the mean of the rows, ``(width,)``; None if they spread so far around it that 0 serves as well."""
    sample_SD = pool_ND[:: -(-len(pool_ND) // _SAMPLED)].double()
    centre_D = sample_SD.mean(dim=0)
    spread = (sample_SD - centre_D).square_().sum(dim=1).mean()
    return centre_D.to(pool_ND.dtype) if centre_D.square().sum() > 8 * spread else None


def _centred(rows_ND: Tensor, centre_D: Tensor | None) -> Tensor:
    """Return float32 rows with the same differences, each number rounded once."""
    return (rows_ND if centre_D is None else rows_ND - centre_D).float()


def _reach(distances: Tensor) -> Tensor:
    """Return the distances, float64, at or below which others may be as near as these, which were rounded."""
    return distances.double() * (1 + 4 * _UNIT)


def _measured(block_BD: Tensor, pool_ND: Tensor, candidates_BK: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return distances and indices of the k nearest of each query's candidates, measured by differences."""
    distances, indices = [], []
    rows = max(1, _REMEASURED // (candidates_BK.shape[1] * max(1, pool_ND.shape[1])))
    for part_BD, part_BK in zip(block_BD.split(rows), candidates_BK.split(rows), strict=True):
        part_BK = part_BK.sort(dim=1).values
        gaps_BKD = pool_ND[part_BK].double() - part_BD.double()[:, None]
        distances_BK = gaps_BKD.square_().sum(dim=2).sqrt_().float()
        order_BK = distances_BK.argsort(dim=1, stable=True)[:, :k]
        distances.append(distances_BK.gather(1, order_BK))
        indices.append(part_BK.gather(1, order_BK))
    return torch.cat(distances), torch.cat(indices)


def _settled(block_BD: Tensor, pool_ND: Tensor, found_BK: Tensor, centre_D: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return distances and indices of the nearest samples, after all are measured that products cannot rule out.

    Args:
        block_BD: The queries.
        pool_ND: The pool.
        found_BK: Distances of some samples; as many are returned, and none is farther than these.
        centre_D: What the products subtract.
    """
    k, limit_B1 = found_BK.shape[1], _reach(found_BK[:, -1:]).square()
    best_BK, indices_BK = found_BK[:, :0], torch.empty(len(block_BD), 0, dtype=torch.int64)
    for start, floor_BN in _floors(block_BD, pool_ND, centre_D):
        distances_BN = torch.full_like(floor_BN, torch.inf)
        pairs_P2 = (~(floor_BN > limit_B1)).nonzero()  # nan counts as near
        for part_P2 in pairs_P2.split(max(1, _REMEASURED // max(1, pool_ND.shape[1]))):
            query_P, sample_P = part_P2.unbind(1)
            gaps_PD = pool_ND[start + sample_P].double() - block_BD[query_P].double()
            distances_BN[query_P, sample_P] = gaps_PD.square_().sum(dim=1).sqrt_().float()
        best_BK = torch.cat([best_BK, distances_BN], dim=1)
        numbers_BN = torch.arange(start, start + distances_BN.shape[1]).expand_as(distances_BN)
        order_BK = best_BK.argsort(dim=1, stable=True)[:, :k]
        best_BK = best_BK.gather(1, order_BK)
        indices_BK = torch.cat([indices_BK, numbers_BN], dim=1).gather(1, order_BK)
    return best_BK, indices_BK


def _floors(block_BD: Tensor, pool_ND: Tensor, centre_D: Tensor | None) -> Iterator[tuple[int, Tensor]]:
    """Yield, for each block of the pool, its first index and lower bounds of the squared distances, ``(b, samples)``.

    In float32, |x|² + |q|² - 2 x·q has an error of at most (2 width + 24) units of (|x|² + |q|²), in whatever order the
    products are added. So the squares are reduced by that much.
    """
    kept = 1 - (2 * pool_ND.shape[1] + 24) * _UNIT
    block_BD = _centred(block_BD, centre_D)
    squares_B1 = torch.linalg.vector_norm(block_BD, dim=1, keepdim=True).square() * kept
    for start in range(0, len(pool_ND), _POOL):
        part_ND = _centred(pool_ND[start : start + _POOL], centre_D)
        squares_N = torch.linalg.vector_norm(part_ND, dim=1).square() * kept
        yield start, torch.addmm(squares_N, block_BD, part_ND.T, alpha=-2).add_(squares_B1)


def _by_products(
    queries_MD: Tensor, pool_ND: Tensor, k: int, centre_D: Tensor | None = None
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield blocks of queries with the indices of k samples each, and a floor of the others' squared distances.

    The samples are those with the least lower bounds. The bits of a non-negative float, read as an integer, have the
    same order as the float. A key holds the bits of the bound, followed by the sample's index, so no two are equal.
    """
    for block_BD in queries_MD.split(_QUERIES):
        best_BK = torch.empty(len(block_BD), 0, dtype=torch.int64)
        for start, floor_BN in _floors(block_BD, pool_ND, centre_D):
            bits_BN = floor_BN.clamp_(min=0).view(torch.int32).long()
            keys_BN = bits_BN.bitwise_left_shift_(32).add_(torch.arange(start, start + floor_BN.shape[1]))
            best_BK = torch.cat([best_BK, keys_BN], dim=1)
            best_BK = best_BK.topk(min(k, best_BK.shape[1]), dim=1, largest=False, sorted=False).values
        floor_B = best_BK.amax(dim=1).bitwise_right_shift_(32).to(torch.int32).view(torch.float32)
        yield block_BD, best_BK & 0xFFFFFFFF, floor_B


def _by_faiss(
    queries_MD: Tensor, pool_ND: Tensor, k: int, centre_D: Tensor | None = None
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield the same by faiss, which rounds no more than the products."""
    if not RequirementCache("faiss-cpu"):
        raise UserError('backend: faiss needs `faiss-cpu`; install it with `pip install "lit-shift[faiss]"`.')
    import faiss

    pool_ND = _centred(pool_ND, centre_D)
    largest = torch.linalg.vector_norm(pool_ND, dim=1).max().square()
    index = faiss.IndexFlatL2(pool_ND.shape[1])
    index.add(pool_ND.contiguous().numpy())
    for block_BD in queries_MD.split(_QUERIES):
        centred_BD = _centred(block_BD, centre_D)
        squared_BK, indices_BK = map(torch.from_numpy, index.search(centred_BD.contiguous().numpy(), k))
        error_B = (torch.linalg.vector_norm(centred_BD, dim=1).square() + largest) * (2 * pool_ND.shape[1] + 24) * _UNIT
        yield block_BD, indices_BK, squared_BK[:, -1] - error_B


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
