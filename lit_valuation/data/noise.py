"""Noise in an owner's data: wrong labels and disturbed inputs.

The honest protocol corrupts a random part of all that an owner has. The released code of Sarwar et al. 2024 corrupts
only what was not selected on clean data, which shows less: the good samples are never corrupted. That protocol exists
as the argument ``protect``, for reproduction only.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lit_core.errors import UserError, did_you_mean
from lit_valuation.samples import Samples


@dataclass(frozen=True)
class Noise:
    """How the data of owners are corrupted before they see them.

    Args:
        labels: Share of an owner's samples that get the label of another class, from 0 to 1.
        inputs: Share of an owner's samples whose inputs are disturbed, from 0 to 1; drawn apart from the labels.
        strength: Standard deviation of the disturbance: of images in parts of white, of tables and embeddings in
            standard deviations of the column.
        owners: Names of the owners whose data are corrupted; None takes all.
    """

    labels: float = 0.0
    inputs: float = 0.0
    strength: float = 0.5
    owners: list[str] | None = None

    def __post_init__(self) -> None:
        for name, share in (("labels", self.labels), ("inputs", self.inputs)):
            if not 0 <= share <= 1:
                raise UserError(f"{name} of the noise is {share}, but is a share; give 0 to 1.")
        if not self.strength > 0:
            raise UserError(f"strength of the noise is {self.strength}, but must be above 0.")

    def check_owners(self, names: Collection[str]) -> None:
        """Refuse owners that do not exist."""
        for name in self.owners or ():
            if name not in names:
                raise UserError(f"owners of the noise names {name}, which is no owner.{did_you_mean(name, names)}")

    def corrupt(
        self, samples: Samples, seed: int, protect: Collection[str] = ()
    ) -> tuple[Samples, dict[str, list[str]]]:
        """Corrupt an owner's samples.

        Args:
            samples: The samples.
            seed: Seed of what is drawn.
            protect: Keys that stay as they are; only to reproduce the published protocol.

        Returns:
            The corrupted samples, and the keys with wrong ``labels`` and disturbed ``inputs``.
        """
        wrong = draw_samples(samples, self.labels, seed, protect)
        disturbed = draw_samples(samples, self.inputs, seed + 1, protect)
        corrupted = disturb_inputs(flip_labels(samples, wrong, seed), disturbed, self.strength, seed + 1)
        return corrupted, {
            name: [samples.keys[index] for index in chosen.tolist()]
            for name, chosen in (("labels", wrong), ("inputs", disturbed))
        }


def draw_samples(samples: Samples, share: float, seed: int, protect: Collection[str] = ()) -> Tensor:
    """Draw a share of the samples that are not protected.

    Returns:
        Their numbers in ascending order, int64 of shape ``(k,)``.
    """
    open_ = torch.tensor([i for i, key in enumerate(samples.keys) if key not in protect], dtype=torch.int64)
    order = torch.randperm(len(open_), generator=torch.Generator().manual_seed(seed))
    return open_[order[: round(share * len(open_))]].sort().values


def flip_labels(samples: Samples, chosen: Tensor, seed: int) -> Samples:
    """Give samples the label of another class, any class that the samples have with equal chance.

    Args:
        samples: All samples of the owner.
        chosen: Numbers of those that get a wrong label.
        seed: Seed of the labels.

    Raises:
        UserError: If all samples are of one class.
    """
    present = samples.y.unique()
    if not len(chosen):
        return samples
    if len(present) < 2:
        raise UserError("Label noise needs two classes, but all samples are of one; leave the noise of labels out.")
    steps = torch.randint(1, len(present), (len(chosen),), generator=torch.Generator().manual_seed(seed))
    y = samples.y.clone()
    y[chosen] = present[(torch.searchsorted(present, y[chosen]) + steps) % len(present)]
    return replace(samples, y=y)


def disturb_inputs(samples: Samples, chosen: Tensor, strength: float, seed: int) -> Samples:
    """Add Gaussian noise to inputs; images stay within their range.

    Args:
        samples: All samples of the owner.
        chosen: Numbers of those that are disturbed.
        strength: Standard deviation, in parts of white or in standard deviations of each column.
        seed: Seed of the noise.
    """
    if not len(chosen):
        return samples
    x = samples.x.clone()
    noise = strength * torch.randn(x[chosen].shape, generator=torch.Generator().manual_seed(seed))
    if x.ndim == 4:
        white = 255 if x.dtype == torch.uint8 else 1
        x[chosen] = (x[chosen].float() + white * noise).clamp(0, white).to(x.dtype)
    else:
        x[chosen] += noise * x.std(0, unbiased=False)
    return replace(samples, x=x)
