"""The data root, and files that are written atomically."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lit_core.errors import RunFailure, UserError
from lit_core.files.temporary import SUFFIX, remove, remove_left, temporary

#: Error numbers of a full disk, a full quota and a file-size limit.
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
#: Those of a file system that knows no hard links.
WITHOUT_LINKS = (errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
#: End of the name of what is being replaced. It is restored, so it is not removed as what is being written.
_FORMER = ".former.litshift"


def data_root() -> Path:
    """Return the folder of prepared and fetched data: ``$LITSHIFT_DATA``, by default ``~/.cache/litshift``."""
    return Path(os.environ.get("LITSHIFT_DATA") or "~/.cache/litshift").expanduser()


def resolve_data_path(path: str | Path) -> Path:
    """Return a path to read data from, which may be given relative to the data root.

    Args:
        path: An absolute path, a path below the working directory, or a path below :func:`data_root`.

    Returns:
        The path itself if it is absolute, begins with ``./`` or ``../``, or exists from the working directory,
        otherwise the path below the data root. Where both exist, that with prepared data is taken: a folder of texts
        and what was prepared from it may have one name.
    """
    found = Path(path).expanduser()
    below = data_root() / found
    if says_where(path) or (found.exists() and (not _is_prepared(below) or _is_prepared(found))):
        return found
    return below


def _is_prepared(folder: Path) -> bool:
    """Tell whether shards with an index lie in a folder, or at most two levels below it."""
    return any(True for levels in range(3) for _ in folder.glob("*/" * levels + "index.json"))


def says_where(path: str | Path) -> bool:
    """Tell whether a path says where it is: it is absolute, or begins with ``~``, ``.`` or ``..``."""
    return os.path.isabs(path) or str(path).split("/")[0] in (".", "..") or str(path).startswith("~")


def make_folder(folder: Path) -> None:
    """Create a folder and its parents, unless they exist.

    Raises:
        UserError: If the file system does not take such a folder, as ``/proc`` does not.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError as error:
        raise UserError(f"{folder} cannot be created ({error.strerror}); choose another path.") from error


def sync_folder(folder: Path) -> None:
    """Make a rename inside a folder survive a power loss."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path, and rename that file to the target if the block succeeds.

    The temporary file is in the target's folder, since a rename from another file system is a copy, which a kill may
    leave incomplete.

    Args:
        target: The file to write; its folder is created if needed.

    Yields:
        Path of an empty temporary file.

    Raises:
        UserError: If the folder cannot be created.
        RunFailure: If the disk is full. No temporary file is left, and an existing file of that name is unchanged.
    """
    make_folder(target.parent)
    try:
        with temporary(target) as path:
            yield path
            with path.open("rb+") as written:
                os.fsync(written.fileno())
            os.chmod(path, 0o666 & ~_umask())
            os.replace(path, target)
            sync_folder(target.parent)
    except OSError as error:
        if error.errno in FULL_DISK:
            raise RunFailure(
                f"The disk is full: {target} could not be written and is unchanged; free some space and repeat."
            ) from error
        raise


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Name a file in the errors of writes to it, in which the system does not name it."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


@contextmanager
def locked_folder(folder: Path, busy: str) -> Iterator[int]:
    """Lock a folder against other processes.

    The folder itself is locked, so that no lock file is left, even after a kill.

    Args:
        folder: The folder, which exists.
        busy: Error message if another process holds the lock.

    Yields:
        The file descriptor that holds the lock.

    Raises:
        UserError: If another process holds the lock, which the message names where the system tells it.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"{busy}{_holder(os.fstat(handle))}") from error
        yield handle
    finally:
        os.close(handle)


@contextmanager
def locked_path(target: Path, busy: str) -> Iterator[None]:
    """Lock a path against other processes, whether there is something or not.

    The lock is a hidden file beside it. It appears locked, and what a kill has left is taken over.

    Args:
        target: The path, whose folder exists.
        busy: Error message if another process holds the lock.

    Raises:
        UserError: If another process holds the lock.
    """
    target = Path(os.path.abspath(target))  # ``.`` has no name
    lock = target.with_name(f".{target.name}.held{SUFFIX}")
    with temporary(target) as own:
        is_held = False
        while not is_held:
            try:
                os.link(own, lock)
                is_held = True
            except FileExistsError:
                with suppress(FileNotFoundError), locked_folder(lock, busy):  # of a killed process
                    lock.unlink()
            except OSError as error:  # a file system without links, where locks are not to be had
                if error.errno not in WITHOUT_LINKS:
                    raise
                break
        try:
            yield
        finally:
            if is_held:
                lock.unlink(missing_ok=True)


def _holder(locked: os.stat_result) -> str:
    """Return a sentence that tells which process holds the lock of a file; empty where the system does not tell."""
    with suppress(OSError, ValueError):
        for line in Path("/proc/locks").read_text().splitlines():
            _, kind, _, _, process, file, *_ = line.split()
            if kind == "FLOCK" and int(file.rpartition(":")[2]) == locked.st_ino:
                return f" It is process {int(process)}."
    return ""


def undo_torn_replacement(target: Path) -> None:
    """Restore the former file or folder if a kill interrupted its replacement; see `former_of`."""
    if not target.name:  # the root, or the working directory
        return
    former = former_of(target)
    if not target.exists() and former.exists():
        with suppress(FileNotFoundError):  # another process was faster
            former.rename(target)


def former_of(target: Path) -> Path:
    """Return the temporary path of a file or folder while another one replaces it."""
    return target.with_name(f".{target.name}{_FORMER}")


def replace_whole(target: Path, whole: Path) -> None:
    """Move a complete file or folder to its final path, replacing a former file or folder there.

    Args:
        target: The final path.
        whole: The complete file or folder, on the same file system.
    """
    former = former_of(target)
    undo_torn_replacement(target)  # of a process that was killed here
    remove(former)
    if target.exists():
        target.rename(former)
    whole.rename(target)
    sync_folder(target.parent)
    remove(former)


def remove_torn_files(folder: Path) -> None:
    """Remove the incomplete files and folders of a killed process, and nothing that has a name of the user's.

    No other process may be replacing something in the folder.
    """
    for path in folder.glob(f".*{_FORMER}"):
        undo_torn_replacement(folder / path.name[1 : -len(_FORMER)])
        remove(path)
    remove_left(folder)


def remove_folder(folder: Path) -> None:
    """Remove a folder, if it exists, at once: a kill leaves no part of it under its name."""
    if folder.is_dir():
        with temporary(folder, folder=True) as grave:
            with suppress(FileNotFoundError):  # another process was faster
                os.rename(folder, grave / "removed")
            sync_folder(folder.parent)


def atomic_write(target: Path, content: str | bytes) -> None:
    """Write a file atomically.

    Args:
        target: The file to write.
        content: Its content; text is written as UTF-8.

    Raises:
        RunFailure: If the disk is full.
    """
    with atomic_path(target) as path:
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits, reading it in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def files_facts(files: Iterable[Path]) -> dict[str, Any]:
    """Return number and total size of files, and a hash of their names, sizes and times; the files are not read."""
    digest, count, size = hashlib.sha256(), 0, 0
    for file in files:
        status = file.stat()
        digest.update(f"{file} {status.st_size} {status.st_mtime_ns}\n".encode())
        count, size = count + 1, size + status.st_size
    return {"files": count, "bytes": size, "listing_sha256": digest.hexdigest()}
