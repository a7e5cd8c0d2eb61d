"""Pictures that the user has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning_utilities.core.imports import RequirementCache
from torch import Tensor

from lit_core.errors import UserError
from lit_core.files.paths import files_facts
from lit_valuation.samples import Samples
from lit_valuation.sources.base import LabelledSource, check_name, to_samples

_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"})


class ImageFolder(LabelledSource):
    """Pictures in a folder per class: ``<folder>/<class>/…``, or ``<folder>/<class>/<group>/…``.

    Each is scaled until its shorter side fits, and its middle square is taken.

    Args:
        folder: The folder.
        name: Name of the source.
        size: Height and width of the samples in pixels, 1 or more.
        channels: 1 for grey, 3 for colour.
        groups: Whether the folders inside a class's folder name groups, such as snow and grass.
        licence: Licence of the pictures, for the record.

    Raises:
        UserError: If there is no such folder, or an argument is wrong.
    """

    input = "image"

    def __init__(
        self,
        folder: str,
        name: str,
        size: int = 64,
        channels: Literal[1, 3] = 3,
        groups: bool = False,
        licence: str = "unknown",
    ) -> None:
        if not RequirementCache("pillow>=9.4"):
            raise UserError('ImageFolder needs `pillow`; install it with `pip install "lit-shift[valuation]"`.')
        self.folder = Path(folder).expanduser()
        if not self.folder.is_dir():
            raise UserError(f"folder of the source {name} is {folder}, but there is no such folder; correct the path.")
        if size < 1:
            raise UserError(f"size of the source {name} is {size}, but must be 1 or more.")
        self.name, self.licence, self.origin = check_name(name), licence, "a folder of pictures"
        self.size, self.channels, self.groups = size, channels, groups

    def samples(self) -> Samples:
        """Return the pictures in the order of their names.

        Raises:
            UserError: If a class has no pictures, or one cannot be read.
        """
        found = list(self._files())
        x = torch.stack([self._picture(path) for path, _, _ in found])
        groups = [group for _, _, group in found] if self.groups else None
        return to_samples(self.name, x, [label for _, label, _ in found], groups)

    def facts(self) -> dict[str, Any]:
        """Return the arguments, and names, sizes and times of the files."""
        files = [path for path, _, _ in self._files()]
        return {"size": self.size, "channels": self.channels, "groups": self.groups, **files_facts(files)}

    def _files(self) -> Iterator[tuple[Path, str, str]]:
        """Yield each picture with the names of its class and group."""
        classes = sorted(path for path in self.folder.iterdir() if path.is_dir())
        if not classes:
            raise UserError(f"{self.folder} has no folders, but it takes one per class; move the pictures into them.")
        for folder in classes:
            pictures = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
            if not pictures:
                raise UserError(f"{folder} has no pictures, but is named as a class; fill it or remove it.")
            for path in pictures:
                inner = path.relative_to(folder).parts
                if self.groups and len(inner) < 2:
                    raise UserError(
                        f"{path} lies in no group's folder, but `groups` is true; move it into one, or leave `groups` "
                        "out."
                    )
                yield path, folder.name, inner[0]

    def _picture(self, path: Path) -> Tensor:
        from PIL import Image

        try:
            with Image.open(path) as image:
                return as_square(image, self.size, self.channels)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise UserError(f"{path} cannot be read as a picture ({error}); mend or remove it.") from error


def as_square(image: Any, size: int, channels: int) -> Tensor:
    """Turn a Pillow image into a sample.

    Args:
        image: The image.
        size: Height and width in pixels.
        channels: 1 for grey, 3 for colour.

    Returns:
        Its scaled middle square, uint8 of shape ``(channels, size, size)``.
    """
    from PIL import ImageOps

    pixels = np.array(ImageOps.fit(image.convert("L" if channels == 1 else "RGB"), (size, size)))
    return torch.from_numpy(pixels).reshape(size, size, channels).permute(2, 0, 1).contiguous()
