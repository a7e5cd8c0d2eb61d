"""Manifests of queries and answers: typed and versioned, with equal bytes for equal content.

The file holds canonical JSON, so the digest that parties compare over another channel is the file's SHA-256. It
contains no name of a person, a machine or a folder, and samples get new keys when they are sent.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any, TypeVar, cast, get_args

from lit_core.errors import UserError
from lit_core.files.formats import check_format, stamp
from lit_core.files.json_files import checked, parse_json
from lit_valuation.encoders import EncoderStamp
from lit_valuation.samples import Target

FORMAT, MANIFEST = "litshift-exchange", "manifest.json"

#: What a query, and the contents of either manifest, may have in the second version; one with none is of the first.
_LATER, _LATER_CONTENTS = ("model", "probe"), ("target", "count", "encoder", "vocabulary")

#: Kinds of targets but classes.
_OTHER_TARGETS = tuple(kind for kind in get_args(Target) if kind != "class")

Plain = bool | int | float | str | None


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
        input: Kind of the inputs: ``image``, ``table``, ``embedding`` or ``tokens``.
        shape: Shape of one input.
        classes: Number of samples by name of class; with each label or tag; or, all the same, by target column.
        index: SHA-256 of ``index.json``.
        shards: The tar files.
        target: Kind of the targets, ``labels``, ``values``, ``tags`` or ``text``; None means classes.
        count: Number of samples where the targets are not classes.
        encoder: The encoder that made the inputs if they are embeddings; None if that is not known.
        vocabulary: What token ids mean, as a name that is equal for equal tokenizers; None for other inputs.
    """

    input: str
    shape: tuple[int, ...]
    classes: dict[str, int]
    index: str
    shards: tuple[Shard, ...]
    target: str | None = None
    count: int | None = None
    encoder: EncoderStamp | None = None
    vocabulary: str | None = None

    def __post_init__(self) -> None:
        if self.target not in (None, *_OTHER_TARGETS) or (self.target is None) != (self.count is None):
            raise UserError(
                f"The manifest has the target {self.target!r} and the count {self.count!r}, but must have neither, or "
                f"{', '.join(_OTHER_TARGETS)} with the number of samples; ask its sender for it again."
            )

    @property
    def samples(self) -> int:
        """Number of samples."""
        return sum(self.classes.values()) if self.count is None else self.count

    @property
    def kind(self) -> Target:
        """Kind of the targets: ``class``, ``labels``, ``values``, ``tags`` or ``text``."""
        return cast(Target, self.target or "class")


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
class TargetSum:
    """A target of a probe: the sum of the gradients of some hard cases of a class.

    Args:
        label: Name of the class.
        queries: Number of hard cases.
    """

    label: str
    queries: int


@dataclass(frozen=True)
class Probe:
    """A linear head on a public encoder's features, and sums of the hard cases' gradients at it, in place of them.

    Args:
        file: The head and the sums.
        classes: Names of the classes of the head, in the order of its outputs.
        targets: The sums, in the order of the file.
        fewest: Fewest hard cases of a sum.
        clip: Largest norm of a hard case's gradient, which longer ones are scaled to; None if they are not.
        epsilon: ε of the noise that was added to the sums; None if there is none.
        delta: δ of that noise.
    """

    file: Attachment
    classes: tuple[str, ...]
    targets: tuple[TargetSum, ...]
    fewest: int
    clip: float | None
    epsilon: float | None
    delta: float | None


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
        probe: A head and sums of gradients in place of the hard cases and of a model; None for a query with hard cases.
    """

    contents: Contents
    columns: tuple[str, ...] | None
    budget: int
    encoder: EncoderStamp | None
    model: Attachment | None = None
    probe: Probe | None = None

    @property
    def given(self) -> Attachment | None:
        """The file at whose model owners compute gradients; None if it is one of their own."""
        return self.model if self.probe is None else self.probe.file

    @property
    def attachments(self) -> tuple[Attachment, ...]:
        """The files that lie beside the samples, or in place of them."""
        return () if self.given is None else (self.given,)


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
    content = {key: value for key, value in content.items() if key not in _LATER or value is not None}
    contents = content["contents"]
    content["contents"] = {
        key: value for key, value in contents.items() if key not in _LATER_CONTENTS or value is not None
    }
    is_later = content.keys() & set(_LATER) or content["contents"].keys() & set(_LATER_CONTENTS)
    head = {**stamp(FORMAT), **({} if is_later else {"version": 1}), "kind": type(manifest).__name__.lower()}
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
    check_format(FORMAT, plain, where, remedy)
    given, wanted = plain.get("kind"), kind.__name__.lower()
    if given != wanted:
        raise UserError(f'{where}: "kind" is {given!r}, but must be {wanted!r}; ask its sender for it again.')
    plain = {key: value for key, value in plain.items() if key not in ("format", "version", "kind")}
    if kind is Query:
        plain = dict.fromkeys(_LATER) | plain
    if isinstance(plain.get("contents"), dict):
        plain["contents"] = dict.fromkeys(_LATER_CONTENTS) | plain["contents"]
    manifest: Manifest = checked(kind, plain, where, remedy)
    if to_bytes(manifest) != content:
        raise UserError(f"{where} was altered: its bytes are not as LitShift writes them; ask its sender for it again.")
    return manifest


def _canonical(value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
    return text.encode()
