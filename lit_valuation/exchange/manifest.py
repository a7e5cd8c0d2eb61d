"""What a query and an answer say about themselves: typed, versioned, and the same bytes for the same content.

The file holds the canonical bytes, so the digest that parties compare over another channel is its plain SHA-256. No
name of a person, a machine or a folder is in it: samples are numbered anew when they leave.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
import types
import typing
from dataclasses import dataclass
from typing import Any, TypeVar

from lit_core.errors import UserError

FORMAT, VERSION, MANIFEST = "litshift-exchange", 1, "manifest.json"

Plain = bool | int | float | str | None


@dataclass(frozen=True)
class EncoderStamp:
    """A public thing that both sides use.

    Args:
        name: Its name.
        sha256: Hash of its weights; None where it has none.
    """

    name: str
    sha256: str | None


@dataclass(frozen=True)
class Shard:
    """A tar file.

    Args:
        file: Its name.
        sha256: Hash of its bytes.
        size: Number of its bytes.
        members: Names of its members, in order.
    """

    file: str
    sha256: str
    size: int
    members: tuple[str, ...]


@dataclass(frozen=True)
class Contents:
    """The samples that come with a manifest.

    Args:
        input: What an input is: ``image``, ``table`` or ``embedding``.
        shape: Shape of an input.
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
class Query:
    """What a model's trainer asks for: samples like these, of these classes.

    Args:
        contents: The hard cases.
        columns: Names of the columns of a table; None where they have none.
        budget: Most samples that an answer may hold.
        encoder: The encoder that an answer must be chosen with, where it is chosen with one; None leaves it open.
    """

    contents: Contents
    columns: tuple[str, ...] | None
    budget: int
    encoder: EncoderStamp | None


@dataclass(frozen=True)
class Choice:
    """How an owner chose.

    Args:
        selector: Class of the selector.
        settings: Its arguments.
        encoder: The encoder behind its features; None where it looks at none.
        model: Class of the network behind its gradients; None where it looks at none.
        checkpoint: SHA-256 of that network's checkpoint.
        facts: What the selector found out, by name.
    """

    selector: str
    settings: dict[str, Plain]
    encoder: EncoderStamp | None
    model: str | None
    checkpoint: str | None
    facts: dict[str, float]


@dataclass(frozen=True)
class Answer:
    """What an owner shares.

    Args:
        query: Digest of the query that is answered.
        contents: The samples.
        budget: Most samples that the owner was ready to share.
        keys: Names of the samples, the most wanted first.
        weights: Weight of each sample, 0 or more.
        disclosed: How many different samples this trainer has been given by now, these included.
        choice: How they were chosen.
    """

    query: str
    contents: Contents
    budget: int
    keys: tuple[str, ...]
    weights: tuple[float, ...]
    disclosed: int
    choice: Choice


Manifest = TypeVar("Manifest", Query, Answer)


def to_bytes(manifest: Query | Answer) -> bytes:
    """Return a manifest's canonical bytes.

    Raises:
        UserError: If a number in it is not finite, or a name is no text.
    """
    head = {"format": FORMAT, "version": VERSION, "kind": type(manifest).__name__.lower()}
    try:
        return _canonical(head | dataclasses.asdict(manifest))
    except ValueError as error:
        raise UserError(
            f"The manifest holds a number that is not finite or a name that is no text ({error}); look at the names of "
            "classes and the selector's weights and facts."
        ) from error


def digest(manifest: Query | Answer) -> str:
    """Return the SHA-256 of a manifest's canonical bytes."""
    return hashlib.sha256(to_bytes(manifest)).hexdigest()


def from_bytes(kind: type[Manifest], content: bytes, where: str) -> Manifest:
    """Read a manifest.

    Args:
        kind: `Query` or `Answer`.
        content: The bytes.
        where: The file, for messages.

    Raises:
        UserError: If they are not the canonical bytes of such a manifest.
    """
    try:
        plain = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is no JSON ({' '.join(str(error).split())}); ask its sender for it again.") from error
    expected = {"format": FORMAT, "version": VERSION, "kind": kind.__name__.lower()}
    for key, value in expected.items():
        found = plain.pop(key, None) if isinstance(plain, dict) else None
        if found != value:
            raise UserError(f'{where}: "{key}" is {found!r}, but must be {value!r}; ask its sender for it again.')
    manifest: Manifest = _typed(kind, plain, where, "")
    if to_bytes(manifest) != content:
        raise UserError(f"{where} was altered: it is not as LitShift writes it; ask its sender for it again.")
    return manifest


def public_name(text: str) -> str:
    """Return a name without the folders of this machine: what stands after an absolute path's last slash."""
    return re.sub(r"(?<![\w.-])(?:~|\.{1,2}|[A-Za-z]:)?[/\\](?:[^\[\]\s]*[/\\])?", "", text)


def _canonical(value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
    return text.encode()


def _typed(kind: Any, value: Any, where: str, key: str) -> Any:
    """Make a value of the type that an annotation names, or say where it is of another one."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in inner:
            return None
        kinds = [choice for choice in inner if choice is not type(None)]
        if len(kinds) == 1:
            return _typed(kinds[0], value, where, key)
        holds, result = type(value) in kinds, value
    elif isinstance(kind, type) and dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        holds = isinstance(value, dict) and value.keys() == hints.keys()
        if holds:
            return kind(**{name: _typed(hint, value[name], where, f"{key}.{name}") for name, hint in hints.items()})
        result = None
    elif origin is tuple:
        holds = isinstance(value, list)
        result = tuple(_typed(inner[0], item, where, f"{key}[]") for item in value) if holds else None
    elif origin is dict:
        holds = isinstance(value, dict)
        result = (
            {name: _typed(inner[1], item, where, f"{key}.{name}") for name, item in value.items()} if holds else None
        )
    else:
        holds, result = type(value) is kind and (kind is not float or math.isfinite(value)), value
    if not holds:
        name = getattr(kind, "__name__", str(kind))
        raise UserError(f'{where}: "{key.lstrip(".")}" is no {name.lower()}; ask its sender for it again.')
    return result
