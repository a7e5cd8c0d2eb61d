"""Images in the user's own folders, one folder per class."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lit_core.errors import UserError, check_at_least
from lit_core.files.listing import listed
from lit_core.files.paths import files_facts
from lit_valuation.data.images import decoded_image, pillow_image
from lit_valuation.samples import Samples
from lit_valuation.sources.base import LabelledSource, check_name, to_samples

_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp"})


class ImageFolder(LabelledSource):
    """Images in a folder per class: ``<folder>/<class>/…``, or ``<folder>/<class>/<group>/…``.

    Each image is scaled until its shorter side fits, then cropped to its central square.

    Args:
        folder: The folder.
        name: Name of the source.
        size: Height and width of the samples in pixels, 1 or more.
        channels: 1 for grey, 3 for colour.
        groups: Whether the folders inside a class's folder name groups, such as snow and grass.
        licence: Licence of the images, for the record.

    Raises:
        UserError: If the folder does not exist, an argument is wrong, or Pillow is not installed.
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
        pillow_image()  # refuses here if Pillow is missing
        self.folder = Path(folder).expanduser()
        if not self.folder.is_dir():
            raise UserError(f"folder of the source {name} is {folder}, but there is no such folder; correct the path.")
        check_at_least(1, size=size)
        self.name, self.licence, self.origin = check_name(name), licence, "a folder of pictures"
        self.size, self.channels, self.groups = size, channels, groups

    def samples(self) -> Samples:
        """Return the images in the order of their paths.

        Raises:
            UserError: If a class has no images, or an image cannot be read.
        """
        files = list(self._files())
        x = torch.stack([self._image(path) for path, _, _ in files])
        groups = [group for _, _, group in files] if self.groups else None
        return to_samples(self.name, x, [label for _, label, _ in files], groups)

    def facts(self) -> dict[str, Any]:
        """Return the arguments, and the names, sizes and modification times of the files."""
        files = [path for path, _, _ in self._files()]
        return {"size": self.size, "channels": self.channels, "groups": self.groups, **files_facts(files)}

    def _files(self) -> Iterator[tuple[Path, str, str]]:
        """Yield each image's path with the names of its class and group."""
        classes = [path for path in listed(self.folder) if path.is_dir()]
        if not classes:
            raise UserError(f"{self.folder} has no folders, but needs one per class; move the images into them.")
        for folder in classes:
            images = [path for path in listed(folder, "**/*") if path.suffix.lower() in _SUFFIXES]
            if not images:
                raise UserError(f"{folder} has no images, but is the folder of a class; fill it or remove it.")
            for path in images:
                inner = path.relative_to(folder).parts
                if self.groups and len(inner) < 2:
                    raise UserError(
                        f"{path} is not in the folder of a group, but `groups` is true; move it into one, or set "
                        "groups to false."
                    )
                yield path, folder.name, inner[0]

    def _image(self, path: Path) -> Tensor:
        try:
            return as_square(path, self.size, self.channels)
        except ValueError as error:
            raise UserError(f"{path} cannot be read as an image ({error}); repair or remove it.") from error


def as_square(image: Any, size: int, channels: int) -> Tensor:
    """Scale a Pillow image and crop it to its central square.

    Args:
        image: The image, or the path of its file.
        size: Height and width in pixels.
        channels: 1 for grey, 3 for colour.

    Returns:
        Pixels, uint8 of shape ``(channels, size, size)``.

    Raises:
        ValueError: If it cannot be decoded.
    """
    from PIL import ImageOps

    pixels = np.array(ImageOps.fit(decoded_image(image, "L" if channels == 1 else "RGB"), (size, size)))
    return torch.from_numpy(pixels).reshape(size, size, channels).permute(2, 0, 1).contiguous()
