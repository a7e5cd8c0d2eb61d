"""Representative subsets: facility-location mutual information with queries, and k-center.

Kaushal et al. 2021 (arXiv 2103.00128) define both forms of the mutual information. They are submodular, so greedy
selection is near-optimal. Similarities are cosines; negative ones count as 0.

Shape suffixes: M queries, N samples of the pool, D width, B samples of a block.
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_core.errors import UserError, check_at_least
from lit_valuation.functional.search import check_widths

Variant = Literal["queries", "pool"]

_BLOCK = 2**22  # similarities in memory at once


def facility_location_mi(
    pool_ND: Tensor, queries_MD: Tensor, k: int, variant: Variant = "queries", eta: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Choose samples greedily, each time the one that increases the mutual information with the queries most.

    ``queries`` (FLQMI) is the sum over queries of the similarity of the nearest chosen sample, plus eta times the sum
    over chosen samples of the similarity of the nearest query. It needs only similarities of pool and queries. ``pool``
    (FLVMI) is the sum over the pool of the smaller of two similarities: that of the nearest chosen sample, and eta
    times that of the nearest query. Similarities within the pool are computed when needed and not stored.

    Args:
        pool_ND: Features of the pool, ``(n, width)``.
        queries_MD: Features of the queries, ``(m, width)``.
        k: Number of samples to choose, from 1 to n.
        variant: ``queries`` or ``pool``.
        eta: Weight of being near a query relative to representing the others, 0 or more.

    Returns:
        Indices of the chosen samples in the order of choice, int64 of shape ``(k,)``, and the gain of each, float64 of
        the same shape.

    Raises:
        UserError: If the widths differ, a feature is not finite, k is out of range or eta is negative.
    """
    _check(pool_ND, k)
    check_widths(queries_MD, pool_ND)
    check_at_least(0, eta=eta)
    kind = _QueryInformation if variant == "queries" else _PoolInformation
    return _lazy_greedy(kind(_unit(pool_ND), _unit(queries_MD), eta), k)


def k_center(pool_ND: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Choose centres: first the sample nearest the mean, then each time the farthest one (Gonzalez 1985).

    Args:
        pool_ND: Features of the pool, ``(n, width)``.
        k: Number of centres, from 1 to n.

    Returns:
        Indices of the centres in the order of choice, int64 of shape ``(k,)``, and after each choice the largest
        distance of a sample from its nearest centre, float64 of the same shape.

    Raises:
        UserError: If a feature is not finite or k is out of range.
    """
    _check(pool_ND, k)
    check_widths(pool_ND, pool_ND)
    pool_ND = pool_ND.double()
    distance_N = torch.full((len(pool_ND),), torch.inf, dtype=torch.float64)
    chosen = torch.empty(k, dtype=torch.int64)
    radius = torch.empty(k, dtype=torch.float64)
    centre = int((pool_ND - pool_ND.mean(dim=0)).square().sum(dim=1).argmin())
    for step in range(k):
        chosen[step] = centre
        distance_N = torch.minimum(distance_N, (pool_ND - pool_ND[centre]).square().sum(dim=1).sqrt())
        distance_N[centre] = -1.0  # never chosen again, even if all samples are equal
        centre = int(distance_N.argmax())
        radius[step] = distance_N[centre].clamp(min=0)
    return chosen, radius


class _Information(ABC):
    """A submodular set function of the chosen samples, given by the gains of single samples."""

    @abstractmethod
    def first_gains(self) -> Tensor:
        """Return the gain of each sample for the empty set, ``(n,)``."""

    @abstractmethod
    def gain(self, index: int) -> float:
        """Return the gain of a sample for the set so far."""

    @abstractmethod
    def add(self, index: int) -> None:
        """Add a sample to the set."""


class _QueryInformation(_Information):
    def __init__(self, pool_ND: Tensor, queries_MD: Tensor, eta: float) -> None:
        self.similarity_NM = (pool_ND @ queries_MD.T).clamp_(min=0)
        self.nearness_N = eta * self.similarity_NM.amax(dim=1)
        self.covered_M = torch.zeros(len(queries_MD), dtype=torch.float64)

    def first_gains(self) -> Tensor:
        return self.similarity_NM.sum(dim=1) + self.nearness_N

    def gain(self, index: int) -> float:
        return float((self.similarity_NM[index] - self.covered_M).clamp_(min=0).sum() + self.nearness_N[index])

    def add(self, index: int) -> None:
        self.covered_M = torch.maximum(self.covered_M, self.similarity_NM[index])


class _PoolInformation(_Information):
    def __init__(self, pool_ND: Tensor, queries_MD: Tensor, eta: float) -> None:
        self.pool_ND = pool_ND
        self.ceiling_N = eta * (pool_ND @ queries_MD.T).clamp_(min=0).amax(dim=1)
        self.covered_N = torch.zeros(len(pool_ND), dtype=torch.float64)

    def first_gains(self) -> Tensor:
        rows = max(1, _BLOCK // len(self.pool_ND))
        return torch.cat([self._bounded(block_BD).sum(dim=1) for block_BD in self.pool_ND.split(rows)])

    def gain(self, index: int) -> float:
        return float((self._bounded(self.pool_ND[index, None])[0] - self.covered_N).clamp_(min=0).sum())

    def add(self, index: int) -> None:
        self.covered_N = torch.maximum(self.covered_N, self._bounded(self.pool_ND[index, None])[0])

    def _bounded(self, block_BD: Tensor) -> Tensor:
        return torch.minimum((block_BD @ self.pool_ND.T).clamp_(min=0), self.ceiling_N)


def _lazy_greedy(information: _Information, k: int) -> tuple[Tensor, Tensor]:
    """Choose greedily, and compute a gain again only if its last value could still be the highest (Minoux 1978)."""
    bounds = [(-gain, index) for index, gain in enumerate(information.first_gains().tolist())]
    heapq.heapify(bounds)
    chosen: list[int] = []
    gains: list[float] = []
    while len(chosen) < k:
        _, index = bounds[0]
        entry = (-information.gain(index), index)
        heapq.heapreplace(bounds, entry)
        if bounds[0] == entry:
            heapq.heappop(bounds)
            information.add(index)
            chosen.append(index)
            gains.append(-entry[0])
    return torch.tensor(chosen), torch.tensor(gains, dtype=torch.float64)


def _check(pool_ND: Tensor, k: int) -> None:
    if not 1 <= k <= len(pool_ND):
        raise UserError(f"k is {k}, but must be from 1 to the {len(pool_ND)} samples of the pool.")


def _unit(features: Tensor) -> Tensor:
    return F.normalize(features.double(), dim=1)  # in float32 the cosines of rows far from 0 would all be 1
