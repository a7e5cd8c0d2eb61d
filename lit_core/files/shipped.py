"""Compressed text files that are shipped with the package."""

from __future__ import annotations

import hashlib
import lzma
from pathlib import Path

from lit_core.errors import RunFailure


def read_shipped(path: Path, sha256: str) -> str:
    """Return the text of a shipped .xz file.

    Args:
        path: The file.
        sha256: SHA-256 of the decompressed text in UTF-8, as hexadecimal digits.

    Raises:
        RunFailure: If the file is missing or damaged.
    """
    try:
        content = lzma.decompress(path.read_bytes())
    except (OSError, lzma.LZMAError) as error:
        raise RunFailure(f"{path} cannot be read ({error}); install the package again.") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise RunFailure(f"{path} is damaged: its SHA-256 is not the recorded one; install the package again.")
    return content.decode()
