"""Versions of the formats that we write, and the check of the version of a file that is read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_core.errors import UserError
from lit_core.files.json_files import checked, read_json

#: The version that is written of each format, and the oldest that is read. Files without a version are of version 0.
FORMATS: dict[str, tuple[int, int]] = {
    "litshift-calibration": (2, 2),
    "litshift-cell": (1, 0),
    "litshift-checkpoint": (2, 0),
    "litshift-exchange": (2, 1),
    "litshift-fetched": (1, 0),
    "litshift-fingerprint": (1, 1),
    "litshift-ledger": (1, 0),
    "litshift-prepared": (1, 0),
    "litshift-record": (1, 1),
    "litshift-shards": (1, 1),
    "litshift-training": (2, 0),
    "litshift-work": (1, 0),
}
#: Name of the file in a checkpoint folder that holds everything except the divided tensors.
META = "meta.pt"


class NewerFormat(UserError):
    """A file that a newer release wrote, which is whole."""


def stamp(name: str) -> dict[str, Any]:
    """Return the keys by which a file tells its format and version.

    Args:
        name: Name of the format, a key of `FORMATS`.

    Example:
        >>> stamp("litshift-shards")
        {'format': 'litshift-shards', 'version': 1}
    """
    return {"format": name, "version": FORMATS[name][0]}


def read_stamped(path: str | Path, name: str, kind: Any, remedy: str, lenient: bool = False) -> Any:
    """Return the content of a JSON file of a format of ours, after a check of its version and then of its types.

    Args:
        path: The file.
        name: Name of the format that is expected, a key of `FORMATS`.
        kind: Type of the content; see `json_files.checked`.
        remedy: What to do about a file that is damaged or too old, as an imperative.
        lenient: Whether NaN and infinite numbers are allowed.

    Raises:
        UserError: If the file is missing, damaged, or of another format, version or type.
    """
    content = read_json(path, dict, remedy, lenient)
    check_format(name, content, path, remedy)
    return checked(kind, content, str(path), remedy)


def check_format(name: str, content: Mapping[str, Any], path: str | Path, remedy: str) -> int:
    """Return the version of a file that was read.

    Args:
        name: Name of the format that is expected, a key of `FORMATS`.
        content: Content of the file, with the keys of `stamp` unless it is of version 0.
        path: The file, for the message.
        remedy: What to do about a file that is too old, as an imperative.

    Raises:
        UserError: If the file is of another format, or of a version that this release does not read.
    """
    present, oldest = FORMATS[name]
    form, version = content.get("format"), content.get("version")
    if form is None and version is None and oldest == 0:
        return 0
    if form != name:
        raise UserError(f'{path}: "format" is {form!r:.60}, but must be {name!r}; {remedy}.')
    if type(version) is not int or version < 0:
        raise UserError(f'{path}: "version" is {version!r:.60}, but must be a whole number; {remedy}.')
    if version > present:
        raise NewerFormat(
            f"{path} is of version {version} of {name}, but this release reads versions up to {present}; install a "
            "newer LitShift."
        )
    if version < oldest:
        raise UserError(
            f"{path} is of version {version} of {name}, but this release reads versions from {oldest} on; {remedy}."
        )
    return version


def is_checkpoint_folder(path: Path) -> bool:
    """Tell whether a path is a checkpoint folder, which several devices wrote in parts."""
    return (path / META).is_file()
