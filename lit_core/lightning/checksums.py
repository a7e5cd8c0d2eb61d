"""Checksums of checkpoint files: those of their zip entries, which torch writes but does not compare when it reads."""

from __future__ import annotations

import hashlib
import mmap
import struct
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from lit_core.errors import UserError

if TYPE_CHECKING:
    from torch import nn

#: Where the fields that are needed lie in the headers of a zip file, in bytes from the begin of the header.
_CRC, _LENGTHS, _CENTRAL = 16, 28, 46
_LOCAL_LENGTHS, _LOCAL = 26, 30
_DESCRIPTOR = b"PK\x07\x08"


def check_content(path: str | Path, argument: str) -> None:
    """Check that a checkpoint file holds what was written.

    A file is read once per process, as long as its size and time do not change. Files of torch's former format, which
    is no zip file, have no checksums.

    Args:
        path: The file.
        argument: Name of the argument that gave the path, for the message.

    Raises:
        UserError: If a checksum differs.
    """
    status = Path(path).stat()
    part = _damaged_part(str(path), status.st_ino, status.st_size, status.st_mtime_ns)
    if part is not None:
        raise UserError(
            f"{argument} is {path}, which is damaged: its part {part} is not what was written. Copy the file again, or "
            "give another checkpoint."
        )


@lru_cache(maxsize=256)
def _damaged_part(path: str, *_: int) -> str | None:
    try:
        if not zipfile.is_zipfile(path):
            return None
        with zipfile.ZipFile(path) as archive:
            return archive.testzip()
    except Exception as error:  # whatever damage makes zipfile raise
        return f"list ({error})"


def renew_checksums(path: Path) -> None:
    """Write the checksums of a checkpoint file whose weights were filled in after it was written.

    Args:
        path: The file, a zip file without compression, as torch writes it.
    """
    with zipfile.ZipFile(path) as archive:
        entries, position = archive.infolist(), archive.start_dir
    with path.open("rb+") as file, mmap.mmap(file.fileno(), 0) as content:
        for entry in entries:
            begin = entry.header_offset + _LOCAL + sum(_read(content, "<HH", entry.header_offset + _LOCAL_LENGTHS))
            end = begin + entry.file_size
            crc = 0
            for start in range(begin, end, 1 << 24):
                crc = zlib.crc32(content[start : min(start + (1 << 24), end)], crc)
            struct.pack_into("<L", content, position + _CRC, crc)
            if content[end : end + 4] == _DESCRIPTOR:
                struct.pack_into("<L", content, end + 4, crc)
            position += _CENTRAL + sum(_read(content, "<HHH", position + _LENGTHS))


def _read(content: mmap.mmap, form: str, offset: int) -> tuple[int, ...]:
    return struct.unpack_from(form, content, offset)


def weights_sha256(module: nn.Module) -> str:
    """Return the SHA-256, in hexadecimal digits, of a network's weights: names, dtypes, shapes and values."""
    import torch

    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
