"""The identity of an encoder, by which two parties know that their features are comparable."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lit_valuation.encoders.base import Encoder


@dataclass(frozen=True)
class EncoderStamp:
    """Identity of a public encoder that both sides use.

    Args:
        name: Name of the encoder.
        sha256: Hash of its weights; None for an encoder without weights.
    """

    name: str
    sha256: str | None

    @classmethod
    def of(cls, encoder: Encoder) -> EncoderStamp:
        """Return the identity of an encoder, without any folder of this machine."""
        return cls(public_name(encoder.name), encoder.sha256)

    def __str__(self) -> str:
        return f"{self.name} ({(self.sha256 or 'no weights')[:12]})"


def public_name(text: str) -> str:
    """Return a name without folders of this machine: of each path in it, only the part after the last slash."""
    return re.sub(r"(?<![\w.-])(?:~|\.{1,2}|[A-Za-z]:)?[/\\](?:[^\[\]\s]*[/\\])?", "", text)
