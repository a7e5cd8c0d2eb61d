"""What makes part of a source hard for the trainer: planted backgrounds, or classes of which the trainer has few.

A planting names each sample's group, `USUAL`, `HARD` or `OTHER`; the division then gives each party its share.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from lit_core.errors import UserError, did_you_mean
from lit_valuation.samples import Samples

USUAL, HARD, OTHER = "usual", "hard", "other"


class Planting(ABC):
    """Says which samples of a source are hard, and makes them so if needed."""

    @abstractmethod
    def plant(self, samples: Samples, seed: int = 0) -> Samples:
        """Return the samples with groups.

        Args:
            samples: All samples of the source; groups that they have are replaced.
            seed: Seed of what is drawn.

        Raises:
            UserError: If the samples do not have what is needed.
        """

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return class and arguments as plain values."""


class PlantedBackground(Planting):
    """Backgrounds that go with the class, except in the hard group: dogs on grass and wolves on snow, in short.

    Each of some classes has its usual background, stripes of an own direction with a phase and noise drawn for each
    image. The hard group of a class shows the background of the next class in the list, the last one that of the
    first. The other classes stay as they are. The images themselves are real.

    Args:
        classes: The classes with backgrounds, two or more.
        hard_fraction: Share of their images that are hard, above 0 and below 1.
        place: Where an image is painted over: ``dark`` where it is darker than an eighth of white, as around clothes
            and digits, or ``border``, a frame of an eighth of its height and width.
    """

    def __init__(
        self, classes: list[str], hard_fraction: float = 0.5, place: Literal["dark", "border"] = "dark"
    ) -> None:
        if len(set(classes)) != len(classes) or len(classes) < 2:
            raise UserError(f"classes is {classes}, but backgrounds change between two or more different classes.")
        if not 0 < hard_fraction < 1:
            raise UserError(f"hard_fraction is {hard_fraction}, but must be above 0 and below 1.")
        self.classes, self.hard_fraction, self.place = list(classes), hard_fraction, place

    def plant(self, samples: Samples, seed: int = 0) -> Samples:
        """Return the samples with backgrounds.

        Raises:
            UserError: If they are no images, or have no such class.
        """
        if samples.x.ndim != 4:
            raise UserError(f"Backgrounds need images, but the samples have the shape {tuple(samples.x.shape[1:])}.")
        numbers = _numbers(self.classes, samples)
        generator = torch.Generator().manual_seed(seed)
        x, groups = samples.x.clone(), [OTHER] * len(samples)
        for place, number in enumerate(numbers):
            mine = (samples.y == number).nonzero().squeeze(1)
            mine = mine[torch.randperm(len(mine), generator=generator)]
            n_hard = round(self.hard_fraction * len(mine))
            for group, chosen, background in (
                (HARD, mine[:n_hard], (place + 1) % len(numbers)),
                (USUAL, mine[n_hard:], place),
            ):
                angle = math.pi * background / len(numbers)
                x[chosen] = paint(samples.x[chosen], stripes(samples.x[chosen], angle, generator), self.place)
                for index in chosen.tolist():
                    groups[index] = group
        return replace(samples, x=x, groups=tuple(groups))

    def describe(self) -> dict[str, Any]:
        """Return class and arguments."""
        given = {"classes": self.classes, "hard_fraction": self.hard_fraction, "place": self.place}
        return {"class": type(self).__name__, **given}


class ScarceClasses(Planting):
    """Classes of which the trainer has few, such as shirts among pullovers and coats; nothing is painted.

    Args:
        classes: The hard classes; those they are confused with are among the others.
    """

    def __init__(self, classes: list[str]) -> None:
        if not classes:
            raise UserError("classes is empty, but something must be scarce; name at least one class.")
        self.classes = list(classes)

    def plant(self, samples: Samples, seed: int = 0) -> Samples:
        """Return the samples with groups: the scarce classes are hard, the others usual.

        Raises:
            UserError: If there is no such class, or no other.
        """
        hard = set(_numbers(self.classes, samples))
        if len(hard) == len(samples.classes):
            raise UserError("classes names all classes, but the trainer must have some in plenty; leave some out.")
        return replace(samples, groups=tuple(HARD if number in hard else USUAL for number in samples.y.tolist()))

    def describe(self) -> dict[str, Any]:
        """Return class and arguments."""
        return {"class": type(self).__name__, "classes": self.classes}


def stripes(images: Tensor, angle: float, generator: torch.Generator) -> Tensor:
    """Draw a background per image: waves between 0.1 and 0.6 of white, and noise of deviation 0.05.

    Args:
        images: The images, ``(n, channels, height, width)``; only their shape counts.
        angle: Direction of the waves, in radians.
        generator: Draws phase and noise.

    Returns:
        Backgrounds in [0, 1], of the images' shape.
    """
    n, channels, height, width = images.shape
    period = max(4.0, min(height, width) / 5)
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    along = (columns * math.cos(angle) + rows * math.sin(angle)) * (2 * math.pi / period)
    phase = math.pi / 2 * torch.rand(n, 1, 1, 1, generator=generator)
    waves = 0.35 + 0.25 * torch.sin(along + phase)
    noise = 0.05 * torch.randn(n, 1, height, width, generator=generator)
    return (waves + noise).clamp(0, 1).expand(n, channels, height, width)


def paint(images: Tensor, backgrounds: Tensor, place: Literal["dark", "border"]) -> Tensor:
    """Put backgrounds behind images.

    Args:
        images: Images as uint8 or as floats in [0, 1], ``(n, channels, height, width)``.
        backgrounds: Backgrounds in [0, 1], of the same shape.
        place: Where: ``dark`` pixels, or the ``border``.

    Returns:
        Images of the same type.
    """
    white = 255 if images.dtype == torch.uint8 else 1
    if place == "dark":
        covered = images.float().amax(1, keepdim=True) < white / 8
    else:
        height, width = images.shape[2:]
        covered = torch.ones(1, 1, height, width, dtype=torch.bool)
        covered[..., _inside(height), _inside(width)] = False
    return torch.where(covered, (backgrounds * white).to(images.dtype), images)


def _inside(size: int) -> slice:
    """Return what lies inside a frame of an eighth."""
    return slice(math.ceil(size / 8), size - math.ceil(size / 8))


def _numbers(names: Sequence[str], samples: Samples) -> list[int]:
    for name in names:
        if name not in samples.classes:
            hint = did_you_mean(name, samples.classes) or f" There are {', '.join(samples.classes)}."
            raise UserError(f"classes names {name}, which the source does not have.{hint}")
    return [samples.classes.index(name) for name in names]
