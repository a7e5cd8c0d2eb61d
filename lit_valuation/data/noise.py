"""Noise in an owner's data: wrong labels and disturbed inputs.

The honest protocol corrupts a random share of all samples of an owner. The released code of Sarwar et al. 2024 corrupts
only samples that were not selected on clean data, so the best samples are never corrupted, which makes the task easier.
The argument ``protect`` follows that protocol, for reproduction only.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lit_core.errors import UserError, check_above, check_shares, did_you_mean
from lit_valuation.samples import Samples


@dataclass(frozen=True)
class Noise:
    """Corruption of owners' data, applied when the data are prepared.

    Args:
        labels: Share of an owner's samples that get the label of another class, from 0 to 1.
        inputs: Share of an owner's samples whose inputs are disturbed, from 0 to 1, drawn independently of the labels.
        strength: Standard deviation of the disturbance, above 0: for images as a fraction of white, for tables and
            embeddings in standard deviations of the column.
        owners: Names of the owners whose data are corrupted; None takes all.
    """

    labels: float = 0.0
    inputs: float = 0.0
    strength: float = 0.5
    owners: list[str] | None = None

    def __post_init__(self) -> None:
        check_shares(labels=self.labels, inputs=self.inputs)
        check_above(0, strength=self.strength)

    def check_owners(self, names: Collection[str]) -> None:
        """Check that the noisy owners exist.

        Raises:
            UserError: If one of them is not among the names.
        """
        for name in self.owners or ():
            if name not in names:
                raise UserError(f"owners of the noise names {name}, which is not an owner.{did_you_mean(name, names)}")

    def corrupt(
        self, samples: Samples, seed: int, protect: Collection[str] = ()
    ) -> tuple[Samples, dict[str, list[str]]]:
        """Corrupt an owner's samples.

        Args:
            samples: The samples.
            seed: Seed of the draw, 0 or more.
            protect: Keys of samples that are never corrupted; only to reproduce the published protocol.

        Returns:
            The corrupted samples, and the keys of those with wrong ``labels`` and of those with disturbed ``inputs``.
        """
        wrong = draw_samples(samples, self.labels, seed, protect)
        disturbed = draw_samples(samples, self.inputs, seed + 1, protect)
        corrupted = disturb_inputs(flip_labels(samples, wrong, seed), disturbed, self.strength, seed + 1)
        return corrupted, {
            name: [samples.keys[index] for index in chosen.tolist()]
            for name, chosen in (("labels", wrong), ("inputs", disturbed))
        }


def draw_samples(samples: Samples, share: float, seed: int, protect: Collection[str] = ()) -> Tensor:
    """Draw a share of the samples that are not protected, without replacement.

    Args:
        samples: All samples of the owner.
        share: Share to draw, from 0 to 1.
        seed: Seed of the draw.
        protect: Keys of samples that are not drawn.

    Returns:
        Indices of the drawn samples in ascending order, int64 of shape ``(k,)``.
    """
    unprotected = torch.tensor([i for i, key in enumerate(samples.keys) if key not in protect], dtype=torch.int64)
    order = torch.randperm(len(unprotected), generator=torch.Generator().manual_seed(seed))
    return unprotected[order[: round(share * len(unprotected))]].sort().values


def flip_labels(samples: Samples, chosen: Tensor, seed: int) -> Samples:
    """Give samples a wrong label, drawn uniformly from the other classes that occur in the samples.

    Args:
        samples: All samples of the owner.
        chosen: Indices of the samples that get a wrong label.
        seed: Seed of the labels.

    Raises:
        UserError: If all samples have the same class.
    """
    present = samples.y.unique()
    if not len(chosen):
        return samples
    if len(present) < 2:
        raise UserError("Label noise needs two classes, but all samples have the same; set labels of the noise to 0.")
    steps = torch.randint(1, len(present), (len(chosen),), generator=torch.Generator().manual_seed(seed))
    y = samples.y.clone()
    y[chosen] = present[(torch.searchsorted(present, y[chosen]) + steps) % len(present)]
    return replace(samples, y=y)


def disturb_inputs(samples: Samples, chosen: Tensor, strength: float, seed: int) -> Samples:
    """Add Gaussian noise to inputs. Images are clipped to their range.

    Args:
        samples: All samples of the owner.
        chosen: Indices of the samples that are disturbed.
        strength: Standard deviation, as a fraction of white or in standard deviations of each column.
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
