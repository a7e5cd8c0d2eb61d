"""Plantings, which make part of a source hard for the trainer: planted backgrounds, or scarce classes.

A planting assigns each sample to a group, `USUAL`, `HARD` or `OTHER`. The division gives each party its share of them.
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
from lit_core.seeds import part_seed
from lit_valuation.samples import Samples

USUAL, HARD, OTHER = "usual", "hard", "other"


class Planting(ABC):
    """Assigns samples of a source to groups, and changes the hard ones where needed."""

    @abstractmethod
    def plant(self, samples: Samples, seed: int | None = None) -> Samples:
        """Return the samples with groups.

        Args:
            samples: All samples of the source; groups that they have are replaced.
            seed: Seed of the draw, 0 or more; None takes that of the run.

        Raises:
            UserError: If the planting does not fit the samples.
        """

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return class and arguments as plain values."""


class PlantedBackground(Planting):
    """Plants a background per class and exchanges the backgrounds in the hard group, like dogs on snow.

    Each of the given classes has its usual background: stripes in a direction of its own, with a phase and noise drawn
    for each image. The hard group of a class shows the background of the next class in the list, the last class that of
    the first. Images of other classes do not change, nor do the objects in the images.

    Args:
        classes: The classes with backgrounds, two or more.
        hard_fraction: Share of their images that are hard, above 0 and below 1.
        place: Part of an image that becomes background: ``dark``, pixels darker than an eighth of white, as around
            clothes and digits, or ``border``, a frame of an eighth of height and width.

    Raises:
        UserError: If there are fewer than two different classes, or the fraction is out of range.
    """

    def __init__(
        self, classes: list[str], hard_fraction: float = 0.5, place: Literal["dark", "border"] = "dark"
    ) -> None:
        if len(set(classes)) != len(classes) or len(classes) < 2:
            raise UserError(f"classes is {classes}, but backgrounds change between two or more different classes.")
        if not 0 < hard_fraction < 1:
            raise UserError(f"hard_fraction is {hard_fraction}, but must be above 0 and below 1.")
        self.classes, self.hard_fraction, self.place = list(classes), hard_fraction, place

    def plant(self, samples: Samples, seed: int | None = None) -> Samples:
        """Return the samples with backgrounds.

        Raises:
            UserError: If the samples are not images, or one of the classes does not exist.
        """
        if samples.x.ndim != 4:
            raise UserError(f"Backgrounds need images, but the samples have the shape {tuple(samples.x.shape[1:])}.")
        classes = _class_indices(self.classes, samples)
        generator = torch.Generator().manual_seed(part_seed(seed))
        x, groups = samples.x.clone(), [OTHER] * len(samples)
        for position, c in enumerate(classes):
            in_class = (samples.y == c).nonzero().squeeze(1)
            in_class = in_class[torch.randperm(len(in_class), generator=generator)]
            n_hard = round(self.hard_fraction * len(in_class))
            for group, chosen, background in (
                (HARD, in_class[:n_hard], (position + 1) % len(classes)),
                (USUAL, in_class[n_hard:], position),
            ):
                angle = math.pi * background / len(classes)
                x[chosen] = paint(samples.x[chosen], stripes(samples.x[chosen], angle, generator), self.place)
                for index in chosen.tolist():
                    groups[index] = group
        return replace(samples, x=x, groups=tuple(groups))

    def describe(self) -> dict[str, Any]:
        """Return class and arguments."""
        given = {"classes": self.classes, "hard_fraction": self.hard_fraction, "place": self.place}
        return {"class": type(self).__name__, **given}


class ScarceClasses(Planting):
    """Makes whole classes hard, such as shirts among pullovers and coats. Inputs do not change.

    Args:
        classes: The hard classes; the classes that they are confused with should be among the others.

    Raises:
        UserError: If there is no class.
    """

    def __init__(self, classes: list[str]) -> None:
        if not classes:
            raise UserError("classes is empty, but at least one class must be scarce; name it.")
        self.classes = list(classes)

    def plant(self, samples: Samples, seed: int | None = None) -> Samples:
        """Return the samples with groups: the scarce classes are hard, the others usual.

        Raises:
            UserError: If one of the classes does not exist, or there are no others.
        """
        hard = set(_class_indices(self.classes, samples))
        if len(hard) == len(samples.classes):
            raise UserError(
                "classes names all classes, but the trainer needs some that are not scarce; leave some out."
            )
        return replace(samples, groups=tuple(HARD if c in hard else USUAL for c in samples.y.tolist()))

    def describe(self) -> dict[str, Any]:
        """Return class and arguments."""
        return {"class": type(self).__name__, "classes": self.classes}


def stripes(images: Tensor, angle: float, generator: torch.Generator) -> Tensor:
    """Return a background for each image: waves between 0.1 and 0.6 of white, and noise of standard deviation 0.05.

    Args:
        images: The images, ``(n, channels, height, width)``; only their shape is used.
        angle: Direction of the waves, in radians.
        generator: Generator of phase and noise.

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
    """Replace part of each image by its background.

    Args:
        images: Images as uint8 or as floats in [0, 1], ``(n, channels, height, width)``.
        backgrounds: Backgrounds in [0, 1], of the same shape.
        place: Part to replace: ``dark`` pixels, or the ``border``.

    Returns:
        Images of the same number format.
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
    """Return the positions inside a frame of an eighth."""
    return slice(math.ceil(size / 8), size - math.ceil(size / 8))


def _class_indices(names: Sequence[str], samples: Samples) -> list[int]:
    for name in names:
        if name not in samples.classes:
            hint = did_you_mean(name, samples.classes) or f" There are {', '.join(samples.classes)}."
            raise UserError(f"classes names {name}, which the source does not have.{hint}")
    return [samples.classes.index(name) for name in names]
