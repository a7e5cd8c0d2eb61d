"""Fashion-MNIST from its Debian package."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from lit_core.errors import UserError
from lit_core.fetch.debian import DebianPackage
from lit_core.files.text_files import read_whole
from lit_valuation.samples import Samples
from lit_valuation.sources.base import LabelledSource, to_samples

CLASSES = (
    "T-shirt",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


class FashionMNIST(DebianPackage, LabelledSource):
    """Fashion-MNIST: 70,000 pictures of clothes, 28 x 28 grey pixels, 10 classes (Xiao et al. 2017, arXiv 1708.07747).

    Training and test images are merged, since ``divide`` divides them itself.

    Args:
        from_folder: Folder that dataset-fashion-mnist was unpacked in with dpkg-deb -x; None fetches it with apt.
    """

    package = "dataset-fashion-mnist"
    known = {  # noqa: RUF012
        "0.0~git20200523.55506a9-1": "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0"
    }
    name, licence, input = "fashion_mnist", "MIT", "image"

    def samples(self) -> Samples:
        """Return the training images, then the test images.

        Raises:
            UserError: If the package cannot be fetched, or its files are not valid IDX files.
        """
        folder = "usr/share/datasets/fashion-mnist"
        images, labels = (
            np.concatenate([read_idx(*self.files(folder, f"{part}-{kind}-ubyte.gz")) for part in ("train", "t10k")])
            for kind in ("images-idx3", "labels-idx1")
        )
        return to_samples(self.name, images[:, None], [CLASSES[label] for label in labels], classes=CLASSES)


def read_idx(path: Path) -> np.ndarray:
    """Read an IDX file of bytes, the format of MNIST and similar sets.

    Args:
        path: The file; ``.gz`` files are decompressed.

    Returns:
        The array, uint8.

    Raises:
        UserError: If the file is not an IDX file of bytes, or is truncated.
    """
    try:
        content = read_whole(path)
        zero, kind, dimensions = struct.unpack_from(">HBB", content)
        shape = struct.unpack_from(f">{dimensions}I", content, 4)
        if zero != 0 or kind != 8:
            raise ValueError("its header is not that of bytes")
        return np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * dimensions).reshape(shape)
    except (OSError, EOFError, ValueError, struct.error) as error:
        raise UserError(f"{path} is not a complete IDX file ({error}); unpack or fetch it again.") from error
