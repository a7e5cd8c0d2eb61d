"""Images in the user's own folders, one folder per class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lit_core.errors import UserError, check_above, check_at_least
from lit_core.files.listing import listed
from lit_core.files.paths import files_facts
from lit_core.screen import say
from lit_valuation.data.images import Ground, decoded_image, pillow_image
from lit_valuation.samples import Samples
from lit_valuation.sources.base import LabelledSource, name_of, refuse_faults, to_samples

_SUFFIXES = frozenset(
    {
        *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".jp2", ".bmp", ".gif", ".tif", ".tiff", ".webp"),
        *(".pgm", ".ppm", ".pnm", ".tga", ".ico", ".pcx"),
    }
)
#: Endings of pictures that are not read, which must not be left out without a word.
_OTHER_PICTURES = frozenset(
    {
        *(".heic", ".heif", ".avif", ".jxl", ".svg", ".psd", ".xcf", ".eps", ".exr", ".hdr", ".dcm", ".nii", ".fits"),
        *(".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".mp4", ".mov", ".avi", ".npy"),
    }
)
#: Folders that systems and programs put beside those of the user.
_OF_SYSTEMS = frozenset(
    {"__MACOSX", "@eaDir", "__pycache__", "lost+found", "$RECYCLE.BIN", "System Volume Information"}
)
#: Brightest pixel, of 255, of a folder that is called dark.
_DARK = 16


class ImageFolder(LabelledSource):
    """Images in a folder per class: ``<folder>/<class>/…``, or ``<folder>/<class>/<group>/…``.

    Each image is turned as its EXIF orientation says, scaled until its shorter side fits, then cropped to its central
    square. Hidden files and folders and files that are not pictures are left out.

    Args:
        folder: The folder.
        name: Name of the source; None takes that of the folder.
        size: Height and width of the samples in pixels, 1 or more.
        channels: 1 for grey, 3 for colour.
        groups: Whether the folders inside a class's folder name groups, such as snow and grass.
        white: Value of a white pixel in images of more than 8 bits, above 0, such as 4095 for 12 bits; None takes 65535
            for 16 bits, and refuses images of floats or of 32 bits.
        ground: What is behind transparent pixels: white or black.
        licence: Licence of the images, for the record.

    Raises:
        UserError: If the folder does not exist, an argument is wrong, or Pillow is not installed.
    """

    input = "image"

    def __init__(
        self,
        folder: str,
        name: str | None = None,
        size: int = 64,
        channels: Literal[1, 3] = 3,
        groups: bool = False,
        white: float | None = None,
        ground: Ground = "white",
        licence: str = "unknown",
    ) -> None:
        pillow_image()  # refuses here if Pillow is missing
        self.folder = Path(folder).expanduser()
        self.name = name_of(name, self.folder)
        if not self.folder.is_dir():
            raise UserError(
                f"folder of the source {self.name} is {folder}, but there is no such folder; correct the path."
            )
        check_at_least(1, size=size)
        check_above(0, white=white)
        self.licence, self.origin = licence, "a folder of pictures"
        self.size, self.channels, self.groups, self.white, self.ground = size, channels, groups, white, ground

    def samples(self) -> Samples:
        """Return the images in the order of their paths.

        Raises:
            UserError: If a class has no images, or images cannot be read. The message names them.
        """
        files = self._files()
        images: list[Tensor] = []
        faults: list[str] = []
        for path, _, _ in files:
            try:
                images.append(as_square(path, self.size, self.channels, self.white, self.ground))
            except ValueError as error:
                faults.append(f"{path} ({error})")
        refuse_faults(faults, len(files), "images")
        x = torch.stack(images)
        if int(x.max()) <= _DARK:
            say(
                f"Note: no pixel of {self.folder} is brighter than {int(x.max())} of 255. If images of 16 bits hold "
                "fewer, give `white`, such as 4095 for 12 bits.",
                error=True,
            )
        self.places = tuple(str(path.relative_to(self.folder)) for path, _, _ in files)
        groups = [group for _, _, group in files] if self.groups else None
        return to_samples(self.name, x, [label for _, label, _ in files], groups)

    def facts(self) -> dict[str, Any]:
        """Return the arguments, and the names, sizes and modification times of the files."""
        given: dict[str, Any] = {"size": self.size, "channels": self.channels, "groups": self.groups}
        given |= {} if self.white is None else {"white": self.white}  # which former records do not have
        given |= {} if self.ground == "white" else {"ground": self.ground}
        return {**given, **files_facts([path for path, _, _ in self._files(quiet=True)])}

    def _files(self, quiet: bool = False) -> list[tuple[Path, str, str]]:
        """Return each image's path with the names of its class and group."""
        inside = [path for path in listed(self.folder) if path.name not in _OF_SYSTEMS]
        loose = [path for path in inside if path.is_file() and _is_picture(path)]
        if loose:
            raise UserError(
                f"{loose[0]} is in the folder of no class, but the folder in which an image lies names its class; move "
                "it into one."
            )
        classes = [path for path in inside if path.is_dir()]
        if not classes:
            raise UserError(f"{self.folder} has no folders, but needs one per class; move the images into them.")
        found: list[tuple[Path, str, str]] = []
        others: list[Path] = []
        for folder in classes:
            inner = [path for path in listed(folder, "**/*") if not _OF_SYSTEMS & {*path.relative_to(folder).parts}]
            files = [path for path in inner if path.is_file()]
            found += self._of_class(folder, [path for path in files if path.suffix.lower() in _SUFFIXES])
            others += [path for path in files if path.suffix.lower() not in _SUFFIXES]
        unread = [path for path in others if _is_picture(path)]
        faults = [f"{path} ({path.suffix.lower()} is not read; convert it to PNG or JPEG)" for path in unread]
        refuse_faults(faults, len(found) + len(unread), "images")
        if others and not quiet:
            kinds = ", ".join(kind or "no ending" for kind, _ in Counter(path.suffix for path in others).most_common(3))
            say(f"Left out as not pictures: {len(others):,} of the files ({kinds}), such as {others[0]}.", error=True)
        return found

    def _of_class(self, folder: Path, images: Sequence[Path]) -> Iterator[tuple[Path, str, str]]:
        if not images:
            raise UserError(f"{folder} has no images, but is the folder of a class; fill it or remove it.")
        for path in images:
            inner = path.relative_to(folder).parts
            if self.groups and len(inner) < 2:
                raise UserError(
                    f"{path} is not in the folder of a group, but `groups` is true; move it into one, or set groups to "
                    "false."
                )
            yield path, folder.name, inner[0]


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES | _OTHER_PICTURES


def as_square(image: Any, size: int, channels: int, white: float | None = None, ground: Ground = "white") -> Tensor:
    """Scale a Pillow image and crop it to its central square.

    Args:
        image: The image, the path of its file, or the file's bytes.
        size: Height and width in pixels.
        channels: 1 for grey, 3 for colour.
        white: Value of a white pixel in images of more than 8 bits; see `decoded_image`.
        ground: What is behind transparent pixels.

    Returns:
        Pixels, uint8 of shape ``(channels, size, size)``.

    Raises:
        ValueError: If it cannot be decoded.
    """
    from PIL import ImageOps

    mode: Literal["L", "RGB"] = "L" if channels == 1 else "RGB"
    pixels = np.array(ImageOps.fit(decoded_image(image, mode, white=white, ground=ground), (size, size)))
    return torch.from_numpy(pixels).reshape(size, size, channels).permute(2, 0, 1).contiguous()
