"""The only reader of images: their declared size is compared with what is expected before anything is decoded."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import Any, Literal

from lightning_utilities.core.imports import RequirementCache

from lit_core.errors import UserError

#: Most pixels of an image whose size is not known before; a file of some kilobytes may claim more.
MOST_PIXELS = 100_000_000


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
) -> Any:
    """Return an image of Pillow, decoded and converted.

    Args:
        source: The bytes of a file, its path, or an image of Pillow that is not decoded yet.
        mode: Colours of the result.
        size: Height and width that the image must have, in pixels; None allows any up to `MOST_PIXELS`.
        formats: Names of the formats that are read; None reads all of Pillow's.

    Raises:
        ValueError: If it cannot be decoded or has another size.
    """
    try:
        if not isinstance(source, bytes | Path):
            return _converted(source, mode, size)
        with pillow_image().open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=formats) as image:
            return _converted(image, mode, size)
    except UserError:
        raise
    except Exception as error:  # each of Pillow's decoders has its own
        raise ValueError(" ".join(str(error).split())[:200] or type(error).__name__) from error


def _converted(image: Any, mode: str, size: tuple[int, int] | None) -> Any:
    width, height = image.size
    if size is not None and (height, width) != tuple(size):
        raise ValueError(f"it is {(height, width)} pixels, but must be {tuple(size)}")
    if width * height > MOST_PIXELS:
        raise ValueError(f"it has {width} x {height} pixels, but at most {MOST_PIXELS:,} are read; make it smaller")
    return image.convert(mode)
