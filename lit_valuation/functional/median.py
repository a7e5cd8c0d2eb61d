"""The geometric median, the point with the least sum of distances to given points, and the distances to it.

Mycroft measures how far an owner's sample is from the queries by its distance to the median of their features: Sarwar
et al. 2024, arXiv 2410.08432.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_core.errors import UserError


def geometric_median(points: Tensor, tolerance: float = 1e-9, max_iterations: int = 10_000) -> Tensor:
    """Return the geometric median by Weiszfeld's iteration, in float64.

    Where an estimate hits a point, the iteration goes on as in Vardi and Zhang 2000 (PNAS 97, 1423); where a point is
    the median, it is returned as it is.

    Args:
        points: Of shape ``(m, d)``, 1 or more.
        tolerance: Length of a step, relative to the mean distance from the points, at which the estimate is final.
        max_iterations: Most steps.

    Returns:
        The median, ``(d,)``, in the points' number format; on a line, one of the medians.

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
        if nearest != checked:  # near a point that is the median the iteration would creep
            step, checked = _step(exact, exact[nearest]), nearest
            if step is None:
                return points[nearest]
        step = _step(exact, estimate)
        if step is None or float(step.norm()) <= tolerance * float(distances.mean()):
            break
        estimate = estimate + step
    return estimate.to(points.dtype)


def psi(points: Tensor, median: Tensor) -> Tensor:
    """Return each point's distance to a median, both scaled to length 1.

    Args:
        points: Features, ``(n, d)``.
        median: A median of normalised features, ``(d,)``.

    Returns:
        Distances from 0 to 2, ``(n,)``.

    Raises:
        UserError: If the features differ in width.
    """
    if points.shape[1:] != median.shape:
        raise UserError(
            f"points has features of width {points.shape[-1]}, but the median has {len(median)}; use one encoder."
        )
    return torch.linalg.vector_norm(F.normalize(points, dim=1) - F.normalize(median, dim=0).to(points), dim=1)


def _step(points: Tensor, at: Tensor) -> Tensor | None:
    """Return one step from a place, None where that is the median already."""
    differences = points - at
    distances = torch.linalg.vector_norm(differences, dim=1)
    here = distances == 0
    pull = (differences[~here] / distances[~here, None]).sum(0)
    strength, hold = float(pull.norm()), float(here.sum())
    if strength <= hold:
        return None
    return (1 - hold / strength) * pull / (1 / distances[~here]).sum()
