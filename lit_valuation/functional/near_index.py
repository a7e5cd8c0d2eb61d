"""An index of many wide rows by a few coordinates, which finds near rows exactly without measuring all of them.

An orthogonal projection P keeps a few coordinates of a row x, and r(x) is the length of what it leaves out. Then

    |Px - Py|² + (r(x) - r(y))² <= |x - y|²

so rows whose coordinates are farther apart than a distance need not be looked at. Only the others are measured. The
directions are the principal components of a sample of the rows.

Shape suffixes: M queries, N rows of the index, S rows of the sample, D width, K coordinates (r is the last), P pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

#: Returns the rows with some indices, float64 of shape ``(indices, width)``.
Rows = Callable[[Tensor], Tensor]

_COORDINATES = 32
_SAMPLED = 512  # rows of which the principal components are computed
_NUMBERS = 2**22  # numbers in memory at once
_FIRST = 32  # rows that are measured first for a nearest one


class NearIndex:
    """Finds rows near to others. Memory holds a few coordinates of each row, and one block of whole rows at a time.

    Args:
        rows: Returns the rows with given indices; it is asked for one block at a time.
        n: Number of rows, 1 or more.
    """

    def __init__(self, rows: Rows, n: int) -> None:
        self._rows, self._n = rows, n
        width = rows(torch.zeros(1, dtype=torch.int64)).shape[1]
        self._block = max(1, _NUMBERS // max(1, width))
        sampled = min(n, _SAMPLED, max(2, self._block))
        sample_SD = rows(torch.arange(sampled) * n // sampled)
        self._centre_D = sample_SD.mean(dim=0)
        self._basis_DK = torch.linalg.svd(sample_SD - self._centre_D, full_matrices=False).Vh[:_COORDINATES].T
        # float32 rounds the coordinates, float64 their computation; r is the root of a difference
        self._slack = 2.0**-21 + (8 * (width + 64) * 2.0**-53) ** 0.5
        self._coordinates_NK = torch.cat([self._project(rows(part)) for part in torch.arange(n).split(self._block)])
        self._lengths_N = torch.linalg.vector_norm(self._coordinates_NK, dim=1)

    @property
    def numbers(self) -> int:
        """How many numbers it keeps in memory."""
        parts = (self._coordinates_NK, self._lengths_N, self._basis_DK, self._centre_D)
        return sum(part.numel() for part in parts)

    def within(self, queries_MD: Tensor, distance: float) -> tuple[Tensor, Tensor]:
        """Find all pairs of a query and a row that are nearer to each other than a distance.

        Args:
            queries_MD: The queries, float64 of shape ``(m, width)``.
            distance: The distance, 0 or more.

        Returns:
            Index of the query and index of the row of each pair, int64 of shape ``(pairs,)`` each.
        """
        queries, rows = [torch.empty(0, dtype=torch.int64)], [torch.empty(0, dtype=torch.int64)]
        for start, floor_BN in self._floors(queries_MD):
            for pairs_P2 in (floor_BN < distance).nonzero().split(self._block):
                query_P, row_P = pairs_P2.unbind(1)
                gaps_PD = self._rows(row_P) - queries_MD[start + query_P]
                is_near_P = torch.linalg.vector_norm(gaps_PD, dim=1) < distance
                queries.append(start + query_P[is_near_P])
                rows.append(row_P[is_near_P])
        return torch.cat(queries), torch.cat(rows)

    def nearest_other(self, queries_MD: Tensor) -> Tensor:
        """Return the distance of each query from the nearest row that is not equal to it.

        Args:
            queries_MD: The queries, float64 of shape ``(m, width)``.

        Returns:
            Distances, float64 of shape ``(m,)``; infinite where all rows are equal to the query.
        """
        found = [torch.empty(0, dtype=torch.float64)]
        for start, floor_BN in self._floors(queries_MD):
            nearest = [
                self._nearest_other(query_D, floor_N)
                for query_D, floor_N in zip(queries_MD[start : start + len(floor_BN)], floor_BN, strict=True)
            ]
            found.append(torch.tensor(nearest, dtype=torch.float64))
        return torch.cat(found)

    def _nearest_other(self, query_D: Tensor, floor_N: Tensor) -> float:
        """Measure rows in the order of their bounds, until no bound is below the smallest distance."""
        best, measured, size = torch.inf, 0, _FIRST
        while measured < self._n:
            size = min(size, self._n)
            floor_S, order_S = floor_N.topk(size, largest=False)
            order_S = order_S[measured:][floor_S[measured:] < best]
            for part in order_S.split(self._block):
                distance_P = torch.linalg.vector_norm(self._rows(part) - query_D, dim=1)
                best = min([best, *distance_P[distance_P > 0].tolist()])
            if floor_S[-1] >= best:
                break
            measured, size = size, 8 * size
        return best

    def _floors(self, queries_MD: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Yield blocks of queries: the first index, and lower bounds of the distances of all rows, ``(b, n)``."""
        size = max(1, _NUMBERS // self._n)
        exactly = "donot_use_mm_for_euclid_dist"
        for start in range(0, len(queries_MD), size):
            block_BK = self._project(queries_MD[start : start + size])
            lengths_BN = torch.linalg.vector_norm(block_BK, dim=1, keepdim=True) + self._lengths_N
            floor_BN = torch.cdist(block_BK, self._coordinates_NK, compute_mode=exactly).mul_(1 - 2.0**-17)
            yield start, floor_BN.sub_(lengths_BN, alpha=self._slack)

    def _project(self, rows_ND: Tensor) -> Tensor:
        """Return the coordinates of rows, float32 of shape ``(rows, coordinates + 1)``."""
        centred_ND = rows_ND - self._centre_D
        coordinates_NK = centred_ND @ self._basis_DK
        rest_N = (centred_ND.square().sum(dim=1) - coordinates_NK.square().sum(dim=1)).clamp(min=0).sqrt()
        return torch.cat([coordinates_NK, rest_N[:, None]], dim=1).float()
