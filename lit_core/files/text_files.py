"""Reading of text files that others wrote: decompression, lines of bounded length, UTF-8."""

from __future__ import annotations

import gzip
import lzma
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO, Any, cast

from lightning_utilities.core.imports import RequirementCache

from lit_core.errors import UserError
from lit_core.files.bad_rows import STOP, BadRows

#: Most bytes of one line, or of one document that is read at once, after decompression.
LARGEST = 1 << 28
#: The compressions by the end of a file's name.
COMPRESSIONS = {".gz": "gzip", ".xz": "xz", ".zst": "Zstandard"}
#: First bytes of files that are no text, and what they are; HTML is text, but its tags are not the author's.
_OTHER_KINDS = {
    b"%PDF-": "a PDF",
    b"PK\x03\x04": "a .docx, another office document or an archive",
    b"\xd0\xcf\x11\xe0": "an old or encrypted office document",
    b"{\\rtf": "RTF",
    b"PAR1": "Parquet",
    b"\x1f\x8b": "compressed by gzip",
    b"\x28\xb5\x2f\xfd": "compressed by Zstandard",
    b"\xfd7zXZ": "compressed by xz",
    b"<!doctype html": "HTML",
    b"<html": "HTML",
}


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading bytes; ``.gz``, ``.xz`` and ``.zst`` are decompressed.

    Raises:
        UserError: If there is no such file, a compressed one is not complete, or a library is missing.
    """
    try:
        file = open_bytes(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); correct the path.") from error
    try:
        with file:
            yield file
    except damage() as error:
        kind = COMPRESSIONS.get(path.suffix.lower(), "text")
        raise UserError(f"{path} is not a complete {kind} file ({error}). Download it again.") from error


def open_bytes(path: Path) -> IO[bytes]:
    """Open a file as `opened` does, for a caller that closes it and expects `damage`.

    Raises:
        UserError: If a library is missing.
        OSError: If it cannot be opened.
    """
    suffix = path.suffix.lower()
    if suffix == ".zst":
        return cast("IO[bytes]", _zstd().open(path))
    if suffix == ".gz":
        return cast("IO[bytes]", gzip.open(path))
    return cast("IO[bytes]", lzma.open(path)) if suffix == ".xz" else path.open("rb")


def damage() -> tuple[type[Exception], ...]:
    """Return the exceptions that reading a damaged compressed file raises."""
    own: tuple[type[Exception], ...] = (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError)
    return (*own, _zstd().ZstdError) if _has_zstd() else own


def plain_name(path: Path) -> str:
    """Return the name of a file in small letters, without the end that names its compression."""
    name = path.name.lower()
    return name.removesuffix(next((end for end in COMPRESSIONS if name.endswith(end)), ""))


def with_compressions(*endings: str) -> tuple[str, ...]:
    """Return the ends of names, and those that also name a compression."""
    return tuple(f"{ending}{packed}" for ending in endings for packed in ("", *COMPRESSIONS))


@cache
def _has_zstd() -> bool:
    return sys.version_info >= (3, 14) or bool(RequirementCache("backports.zstd>=1.0"))


def _zstd() -> Any:
    """Return the module of Zstandard: Python's own since 3.14, or its copy for versions before."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        if not _has_zstd():
            raise UserError('A .zst needs `backports.zstd`; install it with `pip install "lit-shift[detect]"`.')
        from backports import zstd
    return zstd


def lines_of(file: IO[bytes], path: Path, bad: BadRows = STOP) -> Iterator[tuple[str, bytes]]:
    """Yield file and line, for messages, and the bytes of each line.

    Args:
        file: The open file.
        path: Its path.
        bad: What becomes of a line that is longer than `LARGEST`, as a small compressed file may hold.

    Raises:
        UserError: If there is such a line and it ends the command.
    """
    number = 0
    while line := file.readline(LARGEST + 1):
        number += 1
        where = f"{path}, line {number}"
        if len(line) > LARGEST:
            error = UserError(f"{where} is longer than {LARGEST >> 20} MiB; split it, or restore the file.")
            bad.add(where, error)
            while line and not line.endswith(b"\n"):
                line = file.readline(1 << 20)
        else:
            yield where, line


def refuse_other_kinds(path: Path) -> None:
    """Refuse a file that is named like a text, but is something else by its first bytes.

    Single lines of it could be taken for texts where bad ones are set aside.

    Raises:
        UserError: If it is, or cannot be opened.
    """
    with opened(path) as file:
        content = file.read(1 << 13)
    refuse_other_content(content, str(path))
    if b"\0" in content:
        decoded(content, f"{path}, line {content[: content.index(0)].count(10) + 1}")


def refuse_other_content(content: bytes, name: str) -> None:
    """Refuse the content of a file that is something else than text by its first bytes, such as RTF or HTML.

    Args:
        content: The content, or its beginning.
        name: Name of the file, for the message.

    Raises:
        UserError: If it is.
    """
    start = content[:64].removeprefix(b"\xef\xbb\xbf").lstrip()
    for first, kind in _OTHER_KINDS.items():
        if start.startswith(first) or start.lower().startswith(first):
            raise UserError(f"{name} is {kind} by its content, not by its name; rename it, or save its text alone.")


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
        raise UserError(f"{where} is not in UTF-8 (it holds a zero byte, as UTF-16 and programs do); {remedy}.")
    try:
        return content.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is not in UTF-8 ({error.reason} at byte {error.start}); {remedy}.") from error
