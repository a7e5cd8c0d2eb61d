"""Base of what ``prepare`` reads: a name, a licence, an origin, and the description that is recorded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar


class Described(ABC):
    """Base of everything that ``prepare`` reads, with the description that it records.

    Attributes:
        name: Name of the source.
        licence: Licence of the content.
        origin: Where the content comes from.
    """

    name: str
    licence: str
    origin: str
    described: ClassVar[tuple[str, ...]] = ("name", "licence", "origin")

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Return the facts that determine the content, as plain values: arguments, versions, hashes, sizes of files.

        ``prepare`` records them and refuses to reuse prepared data if they have changed. They must be quick to compute.
        """

    def describe(self) -> dict[str, Any]:
        """Return the class, the attributes named by `described`, and the facts, as plain values."""
        attributes = {attribute: getattr(self, attribute) for attribute in self.described}
        return {"class": type(self).__name__, **attributes, "facts": self.facts()}
