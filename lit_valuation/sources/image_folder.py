"""Images in the user's own folders, one folder per class, or with a table of their targets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lit_core.errors import UserError, check_above, check_at_least
from lit_core.files.paths import files_facts
from lit_core.screen import say
from lit_valuation.data.images import Ground, decoded_image, pillow_image
from lit_valuation.samples import Samples
from lit_valuation.sources.base import LabelledSource, name_of, refuse_faults
from lit_valuation.sources.picture_files import PictureFile, found_metadata, pictures_by_class, pictures_of_table
from lit_valuation.sources.rows import table_path
from lit_valuation.sources.targets import TargetColumns

#: Brightest pixel, of 255, of a folder that is called dark.
_DARK = 16


class ImageFolder(LabelledSource):
    """Images in a folder per class, ``<folder>/<class>/…``, or in a folder with a table of their targets.

    Without `table`, `label`, `labels` and `values`, the folder in which an image lies names its class. A table has a
    row per image: the path of its file from the folder on, and its target. Images without a row are left out.

    Each image is turned as its EXIF orientation says, scaled until its shorter side fits, then cropped to its central
    square. Hidden files and folders and files that are not pictures are left out.

    Args:
        folder: The folder.
        name: Name of the source; None takes that of the folder.
        size: Height and width of the samples in pixels, 1 or more.
        channels: 1 for grey, 3 for colour.
        groups: Whether the folders inside a class's folder name groups, such as snow and grass.
        table: Path of the table, a .csv, .jsonl or .parquet file; None takes ``metadata.csv``, ``.jsonl`` or
            ``.parquet`` of the folder if one of the next three arguments is given.
        label: Column of the classes, or in JSONL of lists of labels by name; None takes the column ``label``.
        labels: Columns of 0 and 1, one per label, in place of classes; None if there are none.
        values: Columns of numbers that are to be predicted, in place of classes; None if there are none.
        file: Column of the files' paths in the table.
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
        table: str | None = None,
        label: str | None = None,
        labels: list[str] | None = None,
        values: list[str] | None = None,
        file: str = "file_name",
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
        self.targets, self.file = TargetColumns(label or "label", labels, values), file
        self.table = self._table(table, label)
        if groups and self.table is not None:
            raise UserError("groups is true, but a table gives the targets of the images; leave out one of them.")
        self.size, self.channels, self.groups, self.white, self.ground = size, channels, groups, white, ground

    def samples(self) -> Samples:
        """Return the images in the order of their paths.

        Raises:
            UserError: If a class has no images, or images cannot be read. The message names them.
        """
        files = self._files()
        check_memory(len(files), self.size, self.channels)
        images: list[Tensor] = []
        faults: list[str] = []
        for picture in files:
            try:
                images.append(as_square(picture.path, self.size, self.channels, self.white, self.ground))
            except ValueError as error:
                faults.append(f"{picture.path} ({error})")
        refuse_faults(faults, len(files), "images")
        x = torch.stack(images)
        if int(x.max()) <= _DARK:
            say(
                f"Note: no pixel of {self.folder} is brighter than {int(x.max())} of 255. If images of 16 bits hold "
                "fewer, give `white`, such as 4095 for 12 bits.",
                error=True,
            )
        self.places = tuple(str(picture.path.relative_to(self.folder)) for picture in files)
        groups = [picture.group for picture in files] if self.groups else None
        return self.targets.samples(self.name, x, [picture.target for picture in files], groups)

    def facts(self) -> dict[str, Any]:
        """Return the arguments, and the names, sizes and modification times of the files."""
        given: dict[str, Any] = {"size": self.size, "channels": self.channels, "groups": self.groups}
        given |= {} if self.white is None else {"white": self.white}  # which former records do not have
        given |= {} if self.ground == "white" else {"ground": self.ground}
        files = [picture.path for picture in self._files(quiet=True)]
        if self.table is not None:
            given |= {"label": self.targets.label, "file": self.file, **self.targets.facts()}
            files.append(self.table)
        return {**given, **files_facts(files)}

    def _table(self, path: str | None, label: str | None) -> Path | None:
        if path is not None:
            return table_path(path, self.name, "table")
        if label is None and not self.targets.facts():
            return None
        found = found_metadata(self.folder)
        if found is None:
            raise UserError(
                f"{', '.join(self.targets.columns)} of the source {self.name} is to be a column, but there is no "
                f"table; give `table`, or put metadata.csv into {self.folder}."
            )
        return found

    def _files(self, quiet: bool = False) -> list[PictureFile]:
        if self.table is None:
            return pictures_by_class(self.folder, self.groups, quiet)
        return pictures_of_table(self.folder, self.table, self.file, self.targets, quiet)


def check_memory(n_images: int, size: int, channels: int) -> None:
    """Refuse images that this machine's memory cannot hold, before they are read.

    Args:
        n_images: Number of images.
        size: Height and width to which they are scaled.
        channels: Their channels.

    Raises:
        UserError: If they need more memory than there is.
    """
    needed, there_is = 2 * n_images * size * size * channels, _memory()  # twice, while they are stacked
    if there_is is not None and needed > there_is:
        raise UserError(
            f"size is {size}, so {n_images:,} images need {needed / 2**30:,.1f} GiB of memory, but this machine has "
            f"{there_is / 2**30:,.1f}; lower size, or prepare fewer images."
        )


def _memory() -> int | None:
    """Return the machine's memory in bytes; None where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


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
