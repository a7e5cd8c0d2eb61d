"""k-means of points, and points whose distances are those of gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from lit_core.errors import check_at_least
from lit_core.seeds import part_seed


def k_means(points: Tensor, n_clusters: int, seed: int | None = None, restarts: int = 10) -> Tensor:
    """Divide points into clusters with a small sum of squared distances from their means.

    Lloyd's iterations from several k-means++ draws (Arthur and Vassilvitskii 2007); the smallest sum counts.

    Args:
        points: Points, ``(n, width)``, at least one.
        n_clusters: Most clusters, 1 or more; there are fewer where fewer points differ.
        seed: Seed of the draws, 0 or more; None takes that of the run.
        restarts: Number of draws, 1 or more.

    Returns:
        Cluster of each point, int64 of shape ``(n,)``; the largest is 0, and of equal ones that of the earlier point.

    Raises:
        UserError: If a number is below 1.
    """
    check_at_least(1, n_clusters=n_clusters, restarts=restarts)
    points = points.double()
    points = points - points.mean(0)  # so that no column's offset takes the digits of the spread
    generator = torch.Generator().manual_seed(part_seed(seed))
    n_clusters = min(n_clusters, len(points.unique(dim=0)))
    found = [lloyd(points, _drawn(points, n_clusters, generator)) for _ in range(restarts)]
    sums = [float((points - centres[labels]).square().sum()) for labels, centres in found]
    labels, _ = found[sums.index(min(sums))]
    members = [(labels == cluster).nonzero().squeeze(1) for cluster in labels.unique()]
    ordered = torch.empty_like(labels)
    for cluster, rows in enumerate(sorted(members, key=lambda rows: (-len(rows), int(rows[0])))):
        ordered[rows] = cluster
    return ordered


def lloyd(points: Tensor, centres: Tensor, most: int = 300) -> tuple[Tensor, Tensor]:
    """Assign points to their nearest centres and move these to the means, in turns, until nothing changes.

    Args:
        points: Points, ``(n, width)``.
        centres: First centres, ``(k, width)``.
        most: Most turns.

    Returns:
        Centre of each point, int64 of shape ``(n,)``, and the centres. A centre without points stays where it is.
    """
    labels = _distances(points, centres).argmin(1)
    for _ in range(most):
        centres = torch.stack(
            [points[labels == k].mean(0) if (labels == k).any() else centres[k] for k in range(len(centres))]
        )
        nearest = _distances(points, centres).argmin(1)
        if torch.equal(nearest, labels):
            break
        labels = nearest
    return labels, centres


def points_of_gram(gram: Tensor) -> Tensor:
    """Return points whose inner products are those of a Gram matrix, such as that of gradients.

    Args:
        gram: Inner products of n vectors, ``(n, n)``.

    Returns:
        Points of shape ``(n, n)`` in float64, of which columns may be 0.
    """
    values, vectors = torch.linalg.eigh(gram.double())
    return vectors * values.clamp(min=0).sqrt()


def _distances(points: Tensor, centres: Tensor) -> Tensor:
    """Return distances from differences: products lose them where columns have an offset."""
    return torch.cdist(points, centres, compute_mode="donot_use_mm_for_euclid_dist")


def _drawn(points: Tensor, n_clusters: int, generator: torch.Generator) -> Tensor:
    """Draw centres among the points, each in proportion to its squared distance from those drawn before."""
    chosen = torch.randint(len(points), (1,), generator=generator)
    for _ in range(n_clusters - 1):
        distances = _distances(points, points[chosen]).amin(1).square()
        chosen = torch.cat([chosen, torch.multinomial(distances, 1, generator=generator)])
    return points[chosen]
