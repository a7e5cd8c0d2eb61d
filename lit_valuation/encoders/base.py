"""The base class of encoders, which turn inputs into features, and what they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from lit_core.errors import UserError, check_at_least
from lit_valuation.samples import as_inputs

#: Images, tables or embeddings as in `Samples.x`, or texts.
Inputs = Tensor | Sequence[str]


class Encoder(ABC):
    """Turns inputs into features, on which distances are measured.

    Both sides of an exchange must use the same encoder; its name and hash are in the manifest.

    To add an encoder, derive from this class, export it from ``lit_valuation.encoders``, and write its test and, where
    the command line can build it, its YAML in ``configs/valuation/encoder``.

    Attributes:
        name: Name of the encoder, with its arguments.
        sha256: Hash of its weights; None if it has none.
    """

    name: str
    sha256: str | None

    @abstractmethod
    def encode(self, x: Inputs, batch_size: int = 64) -> Tensor:
        """Encode inputs.

        Args:
            x: Inputs: images as uint8 or as floats in [0, 1], rows of tables, embeddings, or texts.
            batch_size: Inputs per forward pass, 1 or more.

        Returns:
            Features on the CPU, float32 of shape ``(n, width)``.

        Raises:
            UserError: If the encoder cannot read such inputs.
        """


def embed(encoder: Encoder, x: Inputs, batch_size: int = 64) -> Tensor:
    """Return features of unit length, as selectors compare them.

    Args:
        encoder: The encoder.
        x: Inputs.
        batch_size: Inputs per forward pass, 1 or more.

    Returns:
        Features on the CPU, float32 of shape ``(n, width)``.

    Raises:
        UserError: If the encoder cannot read such inputs, or ``batch_size`` is below 1.
    """
    check_at_least(1, batch_size=batch_size)
    return F.normalize(encoder.encode(x, batch_size).float(), dim=1)


def images(x: Inputs, encoder: str) -> Tensor:
    """Return the inputs after checking that they are images.

    Raises:
        UserError: If they are not.
    """
    if not isinstance(x, Tensor) or x.ndim != 4 or x.shape[1] not in (1, 3):
        given = f"a tensor of shape {tuple(x.shape)}" if isinstance(x, Tensor) else "texts"
        raise UserError(
            f"{encoder} encodes images (n, 1 or 3, height, width), but was given {given}; choose an encoder for these."
        )
    return x


def texts(x: Inputs, encoder: str) -> Sequence[str]:
    """Return the inputs after checking that they are texts.

    Raises:
        UserError: If they are not, or there is none.
    """
    if isinstance(x, (str, Tensor)) or not all(isinstance(text, str) for text in x):
        raise UserError(f"{encoder} encodes a list of texts, but was given {type(x).__name__}; choose another encoder.")
    if not x:
        raise UserError(f"{encoder} was given no text; give one or more.")
    return x


def prepare_images(x: Tensor, size: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Convert images to the colours, size and scale that a pretrained network expects.

    Args:
        x: Images ``(n, 1 or 3, height, width)``, uint8 or floats in [0, 1]; grey images get three equal channels.
        size: Height and width in pixels to which images are stretched.
        mean: Mean to subtract from each channel, in [0, 1].
        std: Standard deviation to divide each channel by.

    Returns:
        Images ``(n, 3, size, size)``, float32.
    """
    x = F.interpolate(as_inputs(x), size=(size, size), mode="bilinear", antialias=True).expand(-1, 3, -1, -1)
    return (x - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
