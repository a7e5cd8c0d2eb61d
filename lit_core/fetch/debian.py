"""Data from Debian packages, fetched with apt or read from a folder in which a package was unpacked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lit_core.errors import UserError
from lit_core.fetch.packages import fetch_deb, fetched_record


class DebianPackage:
    """Base of data sources that are made of a Debian package, which is fetched when it is needed.

    Attributes:
        name: Name of the source.
        package: Name of the package.
        known: SHA-256 of the reviewed package files, by version.

    Args:
        from_folder: Folder in which dpkg-deb -x unpacked the package; None fetches it with apt.
    """

    name: str
    package: str
    known: Mapping[str, str]

    def __init__(self, from_folder: str | None = None) -> None:
        self.from_folder = from_folder
        self.origin = f"Debian package {self.package}"
        if from_folder is not None and not Path(from_folder).expanduser().is_dir():
            raise UserError(
                f"from_folder of {self.name} is {from_folder}, but there is no such folder; correct the path."
            )

    def folder(self) -> Path:
        """Return the folder of the unpacked package, fetching it if needed."""
        if self.from_folder is not None:
            return Path(self.from_folder).expanduser()
        return fetch_deb(self.package, self.known)

    def files(self, folder: str, pattern: str) -> Iterator[Path]:
        """Yield the files of the package that match a pattern, sorted by name, without symbolic links.

        Args:
            folder: Folder inside the package.
            pattern: Glob pattern of files inside that folder.

        Raises:
            UserError: If no file matches.
        """
        root = self.folder()
        # A link is a second name of a file, and could lead out of the package.
        files = sorted(path for path in (root / folder).glob(pattern) if path.is_file() and not path.is_symlink())
        if not files:
            raise UserError(
                f"{self.name} needs {folder}/{pattern} of the Debian package {self.package}, but {root} has no such "
                "file; give the folder that `dpkg-deb -x` unpacked the package in as `from_folder`."
            )
        yield from files

    def facts(self) -> dict[str, Any]:
        """Return name, file and SHA-256 of the package, or the folder that was given."""
        return {"from_folder": self.from_folder} if self.from_folder is not None else fetched_record(self.folder())
