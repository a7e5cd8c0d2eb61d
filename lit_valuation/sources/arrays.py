"""Samples in the user's own NumPy arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lit_core.errors import UserError, check_above
from lit_core.files.arrays import map_npy, read_npz
from lit_core.files.paths import files_facts
from lit_valuation.samples import Samples, Target
from lit_valuation.sources.base import LARGEST, LabelledSource, label_of, name_of, to_samples
from lit_valuation.sources.targets import with_columns

#: Numbers of channels that an image may have.
_CHANNELS = (1, 3, 4)


class Arrays(LabelledSource):
    """Inputs and labels in NumPy arrays: one ``.npz`` file, or two ``.npy`` files.

    Inputs ``(n, features)`` are rows of a table. Inputs ``(n, height, width)`` and those with 1, 3 or 4 channels in the
    second or the last dimension are images: of bytes, of floats from 0 to 1, or of other numbers from 0 to `white`.

    Args:
        path: Path of a .npz file, or of a .npy file of the inputs.
        name: Name of the source; None takes that of the file.
        labels: Path of the .npy file of the labels; None takes the array `y` of the .npz file.
        x: Name of the inputs in the .npz file.
        y: Name of the labels in the .npz file, ``(n,)``: numbers of classes, or their names; or, as `target` says,
            ``(n, k)``.
        target: What the labels are: the class of each sample; labels, 0 or 1 per column; or values, numbers to predict.
        names: Names of the k labels or target columns; None takes y0, y1, … or, of one, y.
        channels_last: Whether the channels of images are the last dimension; None finds them by their number.
        white: Value of a white pixel, above 0; None takes 255 for bytes, 65535 for 16 bits, and 1 for floats.
        licence: Licence of the data, for the record.

    Raises:
        UserError: If a file does not exist or has another suffix, or white is not above 0.
    """

    def __init__(
        self,
        path: str,
        name: str | None = None,
        labels: str | None = None,
        x: str = "x",
        y: str = "y",
        target: Target = "class",
        names: list[str] | None = None,
        channels_last: bool | None = None,
        white: float | None = None,
        licence: str = "unknown",
    ) -> None:
        check_above(0, white=white)
        self.path, self.labels = Path(path).expanduser(), None if labels is None else Path(labels).expanduser()
        self.name = name_of(name, self.path)
        for argument, file in (("path", self.path), ("labels", self.labels)):
            if file is not None and not file.is_file():
                raise UserError(
                    f"{argument} of the source {self.name} is {file}, but there is no such file; correct the path."
                )
        if self.path.suffix not in (".npy", ".npz") or (self.path.suffix == ".npy") != (self.labels is not None):
            raise UserError(
                f"path of the source {self.name} is {path} and labels is {labels}, but they must be one .npz file, or "
                "a .npy file and the .npy file of its labels; give these."
            )
        if names is not None and (target == "class" or len(set(names)) < len(names)):
            raise UserError(
                f"names of the source {self.name} is {names} and target is {target}, but they name the columns of "
                "labels or values, each once; correct them."
            )
        self.target, self.names = target, names
        self.x, self.y, self.channels_last, self.white = x, y, channels_last, white
        self.licence, self.origin = licence, "arrays"
        self.input = "table" if self._inputs().ndim == 2 else "image"

    def samples(self) -> Samples:
        """Return the samples in the order of the array.

        Raises:
            UserError: If shapes do not fit, or a value is not a finite number or beyond `white`. The message names the
                index.
        """
        inputs = self._inputs()
        labels = read_npz(self.path, self.y) if self.labels is None else np.asarray(map_npy(self.labels))
        if self.target != "class":
            return self._with_columns(inputs, labels)
        if labels.shape != inputs.shape[:1]:
            raise UserError(
                f"The labels of {self.path} have the shape {labels.shape}, but the inputs {inputs.shape}; give one "
                "label per input."
            )
        if not len(labels):
            raise UserError(f"{self.path} has no samples; add some.")
        names = [label_of(label, f"{self.path}, label {index}") for index, label in enumerate(labels.tolist())]
        self.places = tuple(f"index {index}" for index in range(len(names)))
        return to_samples(self.name, self._images(inputs) if inputs.ndim > 2 else self._rows(inputs), names)

    def _with_columns(self, inputs: np.ndarray, targets: np.ndarray) -> Samples:
        columns = targets[:, None] if targets.ndim == 1 else targets
        if columns.ndim != 2 or len(columns) != len(inputs) or not len(inputs) or columns.dtype.kind not in "biuf":
            raise UserError(
                f"The labels of {self.path} are {targets.dtype} of the shape {targets.shape}, but {self.target} of "
                f"inputs {inputs.shape} are numbers (n,) or (n, columns); reshape them."
            )
        n_columns = columns.shape[1]
        names = self.names or ([self.y] if n_columns == 1 else [f"{self.y}{index}" for index in range(n_columns)])
        if len(names) != n_columns:
            raise UserError(f"names has {len(names)} names, but {self.path} has {n_columns} columns; give one each.")
        wrong = ~np.isin(columns, (0, 1)) if self.target == "labels" else ~(np.abs(columns.astype(float)) <= LARGEST)
        self._refuse(wrong, columns, "is not 0 or 1" if self.target == "labels" else "is not a finite float32")
        self.places = tuple(f"index {index}" for index in range(len(columns)))
        x = self._images(inputs) if inputs.ndim > 2 else self._rows(inputs)
        return with_columns(self.name, x, columns, names, self.target)

    def facts(self) -> dict[str, Any]:
        """Return the arguments, and the names, sizes and modification times of the files."""
        given = {key: getattr(self, key) for key in ("x", "y", "channels_last", "white")}
        given |= {} if self.target == "class" else {"target": self.target, "names": self.names}
        return {**given, **files_facts([self.path, *([self.labels] if self.labels else [])])}

    def _inputs(self) -> np.ndarray:
        inputs = np.asarray(map_npy(self.path) if self.labels is not None else read_npz(self.path, self.x))
        if inputs.ndim not in (2, 3, 4) or inputs.dtype.kind not in "biuf" or 0 in inputs.shape[1:]:
            raise UserError(
                f"{self.path} holds inputs of {inputs.dtype} and shape {inputs.shape}, but they must be numbers "
                "(n, features), (n, height, width) or with channels; reshape them."
            )
        return inputs

    def _rows(self, inputs: np.ndarray) -> Tensor:
        self._refuse(~(np.abs(inputs.astype(np.float64)) <= LARGEST), inputs, "is not a finite float32")
        return torch.from_numpy(inputs.astype(np.float32))

    def _images(self, inputs: np.ndarray) -> Tensor:
        """Return images ``(n, channels, height, width)``, as bytes where they are bytes, else as floats in [0, 1]."""
        images = inputs[:, None] if inputs.ndim == 3 else inputs
        if inputs.ndim == 4 and self._has_channels_last(inputs.shape):
            images = np.moveaxis(images, -1, 1)
        if images.dtype == np.uint8 and self.white in (None, 255):
            return torch.from_numpy(np.array(images))
        known = {"u1": 255.0, "u2": 65535.0, "b1": 1.0, "f2": 1.0, "f4": 1.0, "f8": 1.0}
        white = self.white or known.get(images.dtype.str[1:])
        if white is None:
            raise UserError(
                f"{self.path} holds images of {images.dtype} up to {images.max()}; give `white`, the value that is "
                "white."
            )
        scaled = images.astype(np.float64) / white
        self._refuse(~((scaled >= 0) & (scaled <= 1)), images, f"is not a pixel from 0 to {white:g}, which is `white`")
        return torch.from_numpy(scaled.astype(np.float32))

    def _has_channels_last(self, shape: tuple[int, ...]) -> bool:
        first, last = shape[1] in _CHANNELS, shape[-1] in _CHANNELS
        if self.channels_last is None and first == last:
            raise UserError(
                f"{self.path} holds inputs of the shape {shape}, whose channels are not known by their number (1, 3 or "
                "4); give `channels_last`, true or false."
            )
        chosen = last if self.channels_last is None else self.channels_last
        n_channels = shape[-1 if chosen else 1]
        if n_channels not in _CHANNELS:
            raise UserError(
                f"channels_last is {str(chosen).lower()}, but images of the shape {shape} have {n_channels} channels "
                "then; 1, 3 or 4 are read."
            )
        return chosen

    def _refuse(self, wrong: np.ndarray, inputs: np.ndarray, what: str) -> None:
        if wrong.any():
            place = tuple(int(index) for index in np.argwhere(wrong)[0])
            raise UserError(
                f"{self.path}, index {place[0]}: {inputs[place]} {what}; correct it or leave the sample out."
            )
