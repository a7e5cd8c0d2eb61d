"""The only reader of ``.npy``: numbers only, and no more of them than the bytes that are there."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import IO, Literal

import numpy as np

from lit_core.errors import UserError

_LONGEST_HEADER = 1 << 17
_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def map_npy(path: Path) -> np.ndarray:
    """Return the array of a file, which is mapped into memory, not read.

    Raises:
        UserError: If the file is not a complete .npy file of numbers.
    """
    try:
        with path.open("rb") as file:
            shape, order, dtype = _header(file, path.stat().st_size)
            start = file.tell()
        if not math.prod(shape):
            return np.zeros(shape, dtype)
        return np.memmap(path, dtype=dtype, mode="r", offset=start, shape=shape, order=order)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a .npy file of numbers ({error}); write it again with numpy.") from error


def parse_npy(content: bytes | np.ndarray) -> np.ndarray:
    """Return the array in the bytes of a ``.npy`` file, read-only and not copied.

    Raises:
        ValueError: If they are not those of a complete .npy file of numbers.
    """
    file = io.BytesIO(bytes(content[:_LONGEST_HEADER]))
    shape, order, dtype = _header(file, len(content))
    if not math.prod(shape):
        return np.zeros(shape, dtype)
    return np.frombuffer(content, dtype, offset=file.tell()).reshape(shape, order=order)


def _header(file: IO[bytes], size: int) -> tuple[tuple[int, ...], Literal["C", "F"], np.dtype]:
    """Read shape, order in memory ("C" or "F") and type, and compare them with the size of the file in bytes."""
    try:
        version = np.lib.format.read_magic(file)
        shape, by_columns, dtype = _READERS[version](file)
    except Exception as error:  # numpy evaluates the header, which may raise anything
        raise ValueError(f"its header cannot be read: {' '.join(str(error).split())[:200]}") from error
    if dtype.kind not in "biuf":
        raise ValueError(f"it holds {dtype}, but must hold numbers")
    there = size - file.tell()
    if any(type(length) is not int or length < 0 for length in shape) or math.prod(shape) * dtype.itemsize != there:
        raise ValueError(f"its header says {dtype} of shape {shape}, but {there} bytes follow")
    return shape, "F" if by_columns else "C", dtype
