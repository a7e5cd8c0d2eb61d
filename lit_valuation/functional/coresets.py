"""Subsets that represent: facility-location mutual information with queries, and k-center.

Kaushal et al. 2021 (arXiv 2103.00128) give both forms of the mutual information; greedy selection is near-optimal
since their gains never grow. Similarities are cosines, with negative ones counted as 0.

Shape suffixes: M queries, N samples of the pool, D width, B samples of a block.
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_core.errors import UserError
from lit_valuation.functional.search import check_widths

Variant = Literal["queries", "pool"]

_BLOCK = 2**22  # similarities held at once


def facility_location_mi(
    pool_ND: Tensor, queries_MD: Tensor, k: int, variant: Variant = "queries", eta: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Choose samples one by one, each the one that adds most to the mutual information with the queries.

    ``queries`` (FLQMI): sum over queries of the nearest chosen sample's similarity, plus eta times the sum over
    chosen samples of the nearest query's; needs similarities of pool and queries only. ``pool`` (FLVMI): sum over the
    pool of the smaller of the nearest chosen sample's similarity and eta times the nearest query's; similarities
    within the pool are computed when needed and not kept.

    Args:
        pool_ND: Features of the pool, ``(n, width)``.
        queries_MD: Features of the queries, ``(m, width)``.
        k: Samples to choose, from 1 to n.
        variant: ``queries`` or ``pool``.
        eta: Weight of being near a query against representing all, 0 or more.

    Returns:
        Numbers of the chosen samples in their order, int64 of shape ``(k,)``; what each added, float64.

    Raises:
        UserError: If the widths differ, a feature is not finite, k is out of range or eta is negative.
    """
    _check(pool_ND, k)
    check_widths(queries_MD, pool_ND)
    if eta < 0:
        raise UserError(f"eta is {eta}, but must be 0 or more; 0 ignores how near a query a sample is.")
    kind = _QueryInformation if variant == "queries" else _PoolInformation
    return _lazy_greedy(kind(_unit(pool_ND), _unit(queries_MD), eta), k)


def k_center(pool_ND: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Choose centres, each the sample farthest from all before it (Gonzalez 1985); the first is nearest the mean.

    Args:
        pool_ND: Features of the pool, ``(n, width)``.
        k: Centres to choose, from 1 to n.

    Returns:
        Numbers of the centres in their order, int64 of shape ``(k,)``; after each, the largest distance of a sample
        from its nearest centre, float64.

    Raises:
        UserError: If a feature is not finite or k is out of range.
    """
    _check(pool_ND, k)
    check_widths(pool_ND, pool_ND)
    pool_ND = pool_ND.double()
    distance_N = torch.full((len(pool_ND),), torch.inf, dtype=torch.float64)
    chosen = torch.empty(k, dtype=torch.int64)
    radius = torch.empty(k, dtype=torch.float64)
    number = int((pool_ND - pool_ND.mean(dim=0)).square().sum(dim=1).argmin())
    for step in range(k):
        chosen[step] = number
        distance_N = torch.minimum(distance_N, (pool_ND - pool_ND[number]).square().sum(dim=1).sqrt())
        distance_N[number] = -1.0  # not chosen twice, even where all samples are equal
        number = int(distance_N.argmax())
        radius[step] = distance_N[number].clamp(min=0)
    return chosen, radius


class _Information(ABC):
    """A set function whose gains never grow, by the gains of single samples."""

    @abstractmethod
    def first_gains(self) -> Tensor:
        """Return what each sample would add to the empty set, ``(n,)``."""

    @abstractmethod
    def gain(self, number: int) -> float:
        """Return what a sample would add to those taken."""

    @abstractmethod
    def take(self, number: int) -> None:
        """Add a sample."""


class _QueryInformation(_Information):
    def __init__(self, pool_ND: Tensor, queries_MD: Tensor, eta: float) -> None:
        self.similarity_NM = (pool_ND @ queries_MD.T).clamp_(min=0).double()
        self.nearness_N = eta * self.similarity_NM.amax(dim=1)
        self.covered_M = torch.zeros(len(queries_MD), dtype=torch.float64)

    def first_gains(self) -> Tensor:
        return self.similarity_NM.sum(dim=1) + self.nearness_N

    def gain(self, number: int) -> float:
        return float((self.similarity_NM[number] - self.covered_M).clamp_(min=0).sum() + self.nearness_N[number])

    def take(self, number: int) -> None:
        self.covered_M = torch.maximum(self.covered_M, self.similarity_NM[number])


class _PoolInformation(_Information):
    def __init__(self, pool_ND: Tensor, queries_MD: Tensor, eta: float) -> None:
        self.pool_ND = pool_ND
        self.ceiling_N = eta * (pool_ND @ queries_MD.T).clamp_(min=0).amax(dim=1).double()
        self.covered_N = torch.zeros(len(pool_ND), dtype=torch.float64)

    def first_gains(self) -> Tensor:
        rows = max(1, _BLOCK // len(self.pool_ND))
        return torch.cat([self._bounded(block_BD).sum(dim=1) for block_BD in self.pool_ND.split(rows)])

    def gain(self, number: int) -> float:
        return float((self._bounded(self.pool_ND[number, None])[0] - self.covered_N).clamp_(min=0).sum())

    def take(self, number: int) -> None:
        self.covered_N = torch.maximum(self.covered_N, self._bounded(self.pool_ND[number, None])[0])

    def _bounded(self, block_BD: Tensor) -> Tensor:
        return torch.minimum((block_BD @ self.pool_ND.T).clamp_(min=0).double(), self.ceiling_N)


def _lazy_greedy(information: _Information, k: int) -> tuple[Tensor, Tensor]:
    """Choose greedily, measuring a gain again only where its old value could still win (Minoux 1978)."""
    bounds = [(-gain, number) for number, gain in enumerate(information.first_gains().tolist())]
    heapq.heapify(bounds)
    chosen: list[int] = []
    gains: list[float] = []
    while len(chosen) < k:
        _, number = bounds[0]
        entry = (-information.gain(number), number)
        heapq.heapreplace(bounds, entry)
        if bounds[0] == entry:
            heapq.heappop(bounds)
            information.take(number)
            chosen.append(number)
            gains.append(-entry[0])
    return torch.tensor(chosen), torch.tensor(gains, dtype=torch.float64)


def _check(pool_ND: Tensor, k: int) -> None:
    if not 1 <= k <= len(pool_ND):
        raise UserError(f"k is {k}, but must be from 1 to the {len(pool_ND)} samples of the pool.")


def _unit(features: Tensor) -> Tensor:
    return F.normalize(features.float(), dim=1)
