"""Weights of samples that give an owner's answer a chosen share of the training loss, its mass."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lit_core.errors import UserError, require

#: How the mass of an answer is divided among its samples: equally, or by the weights of its manifest.
Weights = Literal["equal", "manifest"]


def check_mass(mass: float | str | None) -> None:
    """Refuse a mass that is not between 0 and 1, both excluded.

    Args:
        mass: The mass; None and words are not checked.

    Raises:
        UserError: If it is out of range.
    """
    require(mass is None or isinstance(mass, str) or 0 < mass < 1, "mass", mass, "a share above 0 and below 1")


def sample_weights(own: int, mass: float | None, within: Tensor) -> Tensor:
    """Return the weights in the loss of the trainer's own samples, followed by those that are added to them.

    With N own samples, k added ones, mass m and values v within the added ones, an own sample weighs
    (1 − m)(N + k) / N and an added one m (N + k) v / Σ v. So the mean weight is 1, and the added samples' share of the
    weighted loss is m. Without a mass m is k / (N + k), the share by number.

    Args:
        own: N, the number of the trainer's own samples, 1 or more.
        mass: m, above 0 and below 1; None takes the share by number.
        within: v, how much each added sample counts among the added ones, 0 or more, of shape ``(k,)``.

    Returns:
        The weights, float32 of shape ``(N + k,)``.

    Raises:
        UserError: If the mass is out of range, or all values are 0 though there are some.
    """
    check_mass(mass)
    k = len(within)
    if not k:
        return torch.ones(own)
    within = within.double()
    largest = float(within.max())
    if not largest > 0:
        raise UserError("The weights of the samples to be added are all 0, so none would count; use equal weights.")
    share = k / (own + k) if mass is None else mass
    relative = within / largest  # the sum of large values could overflow
    of_own = torch.full((own,), (1 - share) * (own + k) / own, dtype=torch.float64)
    return torch.cat([of_own, share * (own + k) * relative / relative.sum()]).float()
