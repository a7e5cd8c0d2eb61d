"""The only reader of ``.npy`` and ``.npz``, without objects or more numbers than bytes, and a writer of ``.npz``."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Literal

import numpy as np

from lit_core.errors import UserError, reason_of

_LONGEST_HEADER = 1 << 17
#: Kinds of numpy's types that are numbers.
_NUMBERS = "biuf"
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


def read_npz(path: Path, name: str) -> np.ndarray:
    """Return an array of numbers or texts of a ``.npz`` file.

    Raises:
        UserError: If the file is not a complete .npz file, or has no such array. The message names those that it has.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [member.removesuffix(".npy") for member in archive.namelist() if member.endswith(".npy")]
            if name not in names:
                raise UserError(f"{path} has no array {name}, but {', '.join(names) or 'none'}; correct the name.")
            return parse_npy(archive.read(f"{name}.npy"), texts=True)
    except UserError:
        raise
    except Exception as error:  # a damaged archive may raise anything
        reason = reason_of(error)
        raise UserError(f"{path} is not a .npz file of arrays ({reason}); write it again with numpy.") from error


def npz_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return the content of a compressed ``.npz`` file; equal arrays give equal bytes.

    Args:
        arrays: Arrays of numbers or texts by name.
    """
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w") as archive:
            for name, array in arrays.items():
                member = zipfile.ZipInfo(f"{name}.npy")  # of 1980, whenever it is written
                member.compress_type = zipfile.ZIP_DEFLATED
                with io.BytesIO() as content:
                    np.lib.format.write_array(content, np.asarray(array, order="C"), allow_pickle=False)
                    archive.writestr(member, content.getvalue())
        return file.getvalue()


def parse_npy(content: bytes | np.ndarray, texts: bool = False) -> np.ndarray:
    """Return the array in the bytes of a ``.npy`` file, read-only and not copied.

    Args:
        content: The bytes.
        texts: Whether it may also hold texts of one length, as names of classes are.

    Raises:
        ValueError: If they are not those of a complete .npy file of numbers.
    """
    file = io.BytesIO(bytes(content[:_LONGEST_HEADER]))
    shape, order, dtype = _header(file, len(content), _NUMBERS + "U" * texts)
    if not math.prod(shape):
        return np.zeros(shape, dtype)
    return np.frombuffer(content, dtype, offset=file.tell()).reshape(shape, order=order)


def _header(file: IO[bytes], size: int, kinds: str = _NUMBERS) -> tuple[tuple[int, ...], Literal["C", "F"], np.dtype]:
    """Read shape, order in memory ("C" or "F") and type, and compare them with the size of the file in bytes."""
    try:
        version = np.lib.format.read_magic(file)
        shape, by_columns, dtype = _READERS[version](file)
    except Exception as error:  # numpy evaluates the header, which may raise anything
        raise ValueError(f"its header cannot be read: {reason_of(error)}") from error
    if dtype.kind not in kinds:
        raise ValueError(f"it holds {dtype}, but must hold {'numbers or texts' if 'U' in kinds else 'numbers'}")
    there = size - file.tell()
    if any(type(length) is not int or length < 0 for length in shape) or math.prod(shape) * dtype.itemsize != there:
        raise ValueError(f"its header says {dtype} of shape {shape}, but {there} bytes follow")
    return shape, "F" if by_columns else "C", dtype
