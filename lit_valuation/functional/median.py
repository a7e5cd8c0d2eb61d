"""The geometric median, which minimises the sum of distances to given points, and the distance ψ to it.

Mycroft (Sarwar et al. 2024, arXiv 2410.08432) measures how far an owner's sample is from the queries by the distance of
its features to the geometric median of the queries' features.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_core.errors import UserError


def geometric_median(points: Tensor, tolerance: float = 1e-9, max_iterations: int = 10_000) -> Tensor:
    """Return the geometric median by Weiszfeld's iteration, in float64.

    If an estimate equals a point, the step is that of Vardi and Zhang 2000 (PNAS 97, 1423). If a point is the median,
    it is returned exactly.

    Args:
        points: One or more points, of shape ``(m, d)``.
        tolerance: Step length, relative to the mean distance from the points, at which the iteration stops.
        max_iterations: Most iterations.

    Returns:
        The median, ``(d,)``, in the points' number format. If all points are on a line, it is one of their medians.

    Raises:
        UserError: If there is no point or one is not finite.
    """
    if points.ndim != 2 or not len(points):
        raise UserError(
            f"points has shape {tuple(points.shape)}, but the median needs a row for each of 1 or more points."
        )
    if not bool(points.isfinite().all()):
        raise UserError("points is not finite, so it has no median; check the features.")
    exact = points.double()
    estimate, checked = exact.mean(0), -1
    for _ in range(max_iterations):
        distances = torch.linalg.vector_norm(exact - estimate, dim=1)
        nearest = int(distances.argmin())
        if nearest != checked:  # near a median that is a point, the iteration converges too slowly
            step, checked = _step(exact, exact[nearest]), nearest
            if step is None:
                return points[nearest]
        step = _step(exact, estimate)
        if step is None or float(step.norm()) <= tolerance * float(distances.mean()):
            break
        estimate = estimate + step
    return estimate.to(points.dtype)


def psi(points: Tensor, median: Tensor) -> Tensor:
    """Return the distance of each point to a median, after scaling both to length 1.

    Args:
        points: Features, ``(n, d)``.
        median: Geometric median of features of length 1, ``(d,)``.

    Returns:
        Distances from 0 to 2, ``(n,)``.

    Raises:
        UserError: If the widths differ.
    """
    if points.shape[1:] != median.shape:
        raise UserError(
            f"points has features of width {points.shape[-1]}, but the median has {len(median)}; use one encoder."
        )
    gaps = F.normalize(points.double(), dim=1) - F.normalize(median.double(), dim=0)
    return torch.linalg.vector_norm(gaps, dim=1).to(points.dtype)


def _step(points: Tensor, position: Tensor) -> Tensor | None:
    """Return the next step of the iteration from a position; None if that position is the median."""
    differences = points - position
    distances = torch.linalg.vector_norm(differences, dim=1)
    here = distances == 0
    pull = (differences[~here] / distances[~here, None]).sum(0)
    strength, hold = float(pull.norm()), float(here.sum())
    if strength <= hold:
        return None
    return (1 - hold / strength) * pull / (1 / distances[~here]).sum()
