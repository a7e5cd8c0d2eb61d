"""The only reader of images: their declared size is compared with what is expected before anything is decoded."""

from __future__ import annotations

import io
import math
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from lightning_utilities.core.imports import RequirementCache

from lit_core.errors import UserError, reason_of

#: Most pixels of an image whose size is not known before; a file of some kilobytes may claim more.
MOST_PIXELS = 100_000_000
#: What is behind transparent pixels.
Ground = Literal["white", "black"]
#: Modes of Pillow with an alpha channel.
_WITH_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
#: White of an image of 16 bits.
_WHITE_16 = 65535
#: A format of cameras: a photograph, and smaller or further views of it behind it.
_PHOTOGRAPHS = "MPO"


@cache  # looking up a requirement takes longer than decoding a small image
def pillow_image() -> Any:
    """Return the module ``PIL.Image``.

    Raises:
        UserError: If Pillow is not installed.
    """
    if not RequirementCache("pillow>=9.4"):
        raise UserError('Images need `pillow`; install it with `pip install "lit-shift[valuation]"`.')
    from PIL import Image

    return Image


def decoded_image(
    source: bytes | Path | Any,
    mode: Literal["L", "RGB", "RGBA"],
    size: tuple[int, int] | None = None,
    formats: tuple[str, ...] | None = None,
    white: float | None = None,
    ground: Ground = "white",
) -> Any:
    """Return an image of Pillow, decoded and converted to 8 bits per channel.

    Pixels of 16 bits are scaled, transparent ones are painted on a ground, and a photograph is turned as its EXIF
    orientation says, unless its size must be a given one.

    Args:
        source: The bytes of a file, its path, or an image of Pillow that is not decoded yet.
        mode: Colours of the result.
        size: Height and width that the image must have, in pixels; None allows any up to `MOST_PIXELS`.
        formats: Names of the formats that are read; None reads all of Pillow's.
        white: Value of a white pixel in images of more than 8 bits, above 0. None takes 65535 for 16 bits, and refuses
            pixels of 32 bits and floats.
        ground: What is behind transparent pixels where the result has no alpha channel.

    Raises:
        ValueError: If it cannot be decoded, has another size or several frames, or pixels of which none is known to be
            white.
    """
    try:
        if not isinstance(source, bytes | Path):
            return _converted(source, mode, size, white, ground)
        with pillow_image().open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=formats) as image:
            return _converted(image, mode, size, white, ground)
    except UserError:
        raise
    except Exception as error:  # each of Pillow's decoders has its own
        raise ValueError(reason_of(error)) from error


def _converted(image: Any, mode: str, size: tuple[int, int] | None, white: float | None, ground: str) -> Any:
    width, height = image.size
    if size is not None and (height, width) != tuple(size):
        raise ValueError(f"it is {(height, width)} pixels, but must be {tuple(size)}")
    if width * height > MOST_PIXELS:
        raise ValueError(f"it has {width} x {height} pixels, but at most {MOST_PIXELS:,} are read; make it smaller")
    if getattr(image, "is_animated", False) and image.format != _PHOTOGRAPHS:
        raise ValueError("it has several frames or pages; save the one that is meant as an image of its own")
    is_transparent = image.mode in _WITH_ALPHA or "transparency" in image.info
    if image.mode.startswith("I") or image.mode == "F":
        if is_transparent:
            raise ValueError(f"it has a transparent colour among pixels of the mode {image.mode}; remove it")
        image = _scaled(image, white)
    if size is None:
        from PIL import ImageOps

        image = ImageOps.exif_transpose(image)
    if is_transparent:
        with_alpha = image.convert("RGBA")
        if mode == "RGBA":
            return with_alpha
        behind = pillow_image().new("RGBA", with_alpha.size, ground)
        return pillow_image().alpha_composite(behind, with_alpha).convert(mode)
    return (image if image.mode in ("1", "L", "P", "RGB") else image.convert("RGB")).convert(mode)


def _scaled(image: Any, white: float | None) -> Any:
    """Return a grey image of 8 bits for one of more, whose white becomes 255."""
    has_16_bits = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")  # of former Pillows
    pixels = np.asarray(image, dtype=np.float64)
    least, most = float(pixels.min()), float(pixels.max())
    if white is None and not has_16_bits:
        kind = "floats" if image.mode == "F" else "whole numbers of 32 bits"
        raise ValueError(f"its pixels are {kind} from {least:.6g} to {most:.6g}; give `white`, the value that is white")
    top = _WHITE_16 if white is None else white
    if not (least >= 0 and most <= top and math.isfinite(most)):
        raise ValueError(
            f"its pixels run from {least:.6g} to {most:.6g}, but `white` is {top:.6g}; they must be from 0"
        )
    return pillow_image().fromarray(np.round(pixels * (255 / top)).astype(np.uint8))
