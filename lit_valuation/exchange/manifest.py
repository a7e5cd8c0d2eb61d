"""Manifests of queries and answers: typed and versioned, with equal bytes for equal content.

The file holds canonical JSON, so the digest that parties compare over another channel is the file's SHA-256. It
contains no name of a person, a machine or a folder, and samples get new keys when they are sent.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any, TypeVar

from lit_core.errors import UserError
from lit_core.files.formats import check_format, stamp
from lit_core.files.json_files import checked, parse_json

FORMAT, MANIFEST = "litshift-exchange", "manifest.json"

#: What a query of the first version does not have; one without it is still written as such.
_LATER = ("model",)

Plain = bool | int | float | str | None


@dataclass(frozen=True)
class EncoderStamp:
    """Identity of a public encoder that both sides use.

    Args:
        name: Name of the encoder.
        sha256: Hash of its weights; None for an encoder without weights.
    """

    name: str
    sha256: str | None


@dataclass(frozen=True)
class Shard:
    """A tar file of samples.

    Args:
        file: Name of the file.
        sha256: Hash of the file.
        size: Size of the file in bytes.
        members: Names of its members, in order.
    """

    file: str
    sha256: str
    size: int
    members: tuple[str, ...]


@dataclass(frozen=True)
class Contents:
    """Description of the samples that a manifest comes with.

    Args:
        input: Kind of the inputs: ``image``, ``table`` or ``embedding``.
        shape: Shape of one input.
        classes: Number of samples by name of class.
        index: SHA-256 of ``index.json``.
        shards: The tar files.
    """

    input: str
    shape: tuple[int, ...]
    classes: dict[str, int]
    index: str
    shards: tuple[Shard, ...]

    @property
    def samples(self) -> int:
        """Number of samples."""
        return sum(self.classes.values())


@dataclass(frozen=True)
class Attachment:
    """A file that a query has beside its samples.

    Args:
        file: Name of the file.
        sha256: Hash of the file.
        size: Size of the file in bytes.
    """

    file: str
    sha256: str
    size: int

    @classmethod
    def of(cls, file: str, content: bytes) -> Attachment:
        """Return the description of a file with this content."""
        return cls(file, hashlib.sha256(content).hexdigest(), len(content))


@dataclass(frozen=True)
class Query:
    """Manifest of a query: the trainer asks for samples like these hard cases, of their classes.

    Args:
        contents: The hard cases.
        columns: Names of a table's columns; None for other inputs.
        budget: Most samples that an answer may hold.
        encoder: The encoder that an owner must use if its selector uses one; None lets the owner decide.
        model: The trainer's model, at which an owner must compute gradients if its selector uses them; None lets the
            owner use a model of its own.
    """

    contents: Contents
    columns: tuple[str, ...] | None
    budget: int
    encoder: EncoderStamp | None
    model: Attachment | None = None

    @property
    def attachments(self) -> tuple[Attachment, ...]:
        """The files that lie beside the samples."""
        return () if self.model is None else (self.model,)


@dataclass(frozen=True)
class Choice:
    """How an owner chose its answer, in the owner's own words.

    Args:
        selector: Class path of the selector, as that of the network only where it is in a public package.
        settings: Arguments of the selector.
        encoder: The encoder of the features; None if the selector uses none.
        model: Class path of the network that gave the gradients; None if the selector uses none.
        checkpoint: SHA-256 of that network's checkpoint, the owner's or that of the query.
        facts: Values that the selector reports, by name.
    """

    selector: str
    settings: dict[str, Plain]
    encoder: EncoderStamp | None
    model: str | None
    checkpoint: str | None
    facts: dict[str, float]


@dataclass(frozen=True)
class Answer:
    """Manifest of an answer: the samples that an owner shares.

    Args:
        query: Digest of the answered query.
        contents: The shared samples.
        budget: Most samples that the owner was ready to share.
        keys: Keys of the samples, the most wanted first.
        weights: Weight of each sample, 0 or more.
        disclosed: Number of different samples that this trainer has been given so far, including these.
        choice: How the samples were chosen.
    """

    query: str
    contents: Contents
    budget: int
    keys: tuple[str, ...]
    weights: tuple[float, ...]
    disclosed: int
    choice: Choice

    @property
    def attachments(self) -> tuple[Attachment, ...]:
        """An answer has none."""
        return ()


Manifest = TypeVar("Manifest", Query, Answer)


def to_bytes(manifest: Query | Answer) -> bytes:
    """Return a manifest's canonical bytes.

    Raises:
        UserError: If a number in it is not finite, or a name is not valid text.
    """
    content = dataclasses.asdict(manifest)
    is_first = not any(content.get(key) for key in _LATER)
    head = {**stamp(FORMAT), "kind": type(manifest).__name__.lower()}
    if is_first:
        head["version"] = 1
        content = {key: value for key, value in content.items() if key not in _LATER}
    try:
        return _canonical(head | content)
    except ValueError as error:
        raise UserError(
            f"The manifest holds a number that is not finite or a name that is not valid text ({error}); correct the "
            "names of classes, or the selector's weights and facts."
        ) from error


def digest(manifest: Query | Answer) -> str:
    """Return the SHA-256 of a manifest's canonical bytes."""
    return hashlib.sha256(to_bytes(manifest)).hexdigest()


def from_bytes(kind: type[Manifest], content: bytes, where: str) -> Manifest:
    """Parse a manifest and check that its bytes are canonical.

    Args:
        kind: `Query` or `Answer`.
        content: Bytes of the file.
        where: Path of the file, for messages.

    Raises:
        UserError: If the bytes are not the canonical ones of such a manifest.
    """
    remedy = "ask its sender for it again"
    plain = parse_json(content, where, remedy=remedy)
    version = check_format(FORMAT, plain, where, remedy)
    given, wanted = plain.get("kind"), kind.__name__.lower()
    if given != wanted:
        raise UserError(f'{where}: "kind" is {given!r}, but must be {wanted!r}; ask its sender for it again.')
    plain = {key: value for key, value in plain.items() if key not in ("format", "version", "kind")}
    if version == 1 and kind is Query:
        plain = dict.fromkeys(_LATER) | plain
    manifest: Manifest = checked(kind, plain, where, remedy)
    if to_bytes(manifest) != content:
        raise UserError(f"{where} was altered: its bytes are not as LitShift writes them; ask its sender for it again.")
    return manifest


def public_name(text: str) -> str:
    """Return a name without folders of this machine: of each path in it, only the part after the last slash."""
    return re.sub(r"(?<![\w.-])(?:~|\.{1,2}|[A-Za-z]:)?[/\\](?:[^\[\]\s]*[/\\])?", "", text)


def _canonical(value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
    return text.encode()
