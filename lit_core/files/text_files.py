"""Reading of text files that others wrote: decompression, lines of bounded length, UTF-8."""

from __future__ import annotations

import gzip
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from lit_core.errors import UserError

#: Most bytes of one line, or of one document that is read at once, after decompression.
LARGEST = 1 << 28


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading bytes; ``.gz`` and ``.xz`` are decompressed.

    Raises:
        UserError: If there is no such file, or a compressed one is not complete.
    """
    file: IO[bytes]
    suffix = path.suffix.lower()
    try:
        if suffix == ".gz":
            file = gzip.open(path)  # type: ignore[assignment]
        else:
            file = lzma.open(path) if suffix == ".xz" else path.open("rb")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); correct the path.") from error
    try:
        with file:
            yield file
    except (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError) as error:
        kind = {".gz": "gzip", ".xz": "xz"}.get(suffix, "text")
        raise UserError(f"{path} is not a complete {kind} file ({error}). Download it again.") from error


def lines_of(file: IO[bytes], path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield file and line, for messages, and the bytes of each line.

    Raises:
        UserError: If a line is longer than `LARGEST`, as a small compressed file may hold.
    """
    number = 0
    while line := file.readline(LARGEST + 1):
        number += 1
        where = f"{path}, line {number}"
        if len(line) > LARGEST:
            raise UserError(f"{where} is longer than {LARGEST >> 20} MiB; split it, or restore the file.")
        yield where, line


def read_whole(path: Path, largest: int = LARGEST) -> bytes:
    """Return the content of a file, decompressed.

    Args:
        path: The file.
        largest: Most bytes that are read.

    Raises:
        UserError: If there is no such file, it is larger, or a compressed one is not complete.
    """
    blocks, size = [], 0
    with opened(path) as file:
        while block := file.read(1 << 20):
            blocks.append(block)
            size += len(block)
            if size > largest:
                raise UserError(f"{path} holds more than {largest >> 20} MiB, too much for such a file; restore it.")
    return b"".join(blocks)


def read_text(path: Path) -> str:
    """Return the text of a file.

    Raises:
        UserError: If there is no such file, it is too large, or not in UTF-8.
    """
    return decoded(read_whole(path), str(path))


def decoded(content: bytes, where: str, remedy: str = "convert the file") -> str:
    """Return bytes decoded as UTF-8, without a byte-order mark.

    Args:
        content: The bytes.
        where: File, or file and line, for the error message.
        remedy: What to do about it, as an imperative.

    Raises:
        UserError: If they are not UTF-8, or hold a zero byte, as UTF-16 does.
    """
    if b"\0" in content:
        raise UserError(f"{where} is not in UTF-8 (it holds a zero byte, as UTF-16 does); {remedy}.")
    try:
        return content.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is not in UTF-8 ({error.reason} at byte {error.start}); {remedy}.") from error
