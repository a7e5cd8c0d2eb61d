"""Folders that are exchanged: a labelled shard set with a manifest. Writing is atomic; reading trusts nothing."""

from __future__ import annotations

import dataclasses
import math
import os
import re
import stat
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic

import torch

from lit_core.data.shards import INDEX
from lit_core.errors import RunFailure, UserError
from lit_core.files.paths import atomic_write, file_sha256, make_folder, sync_folder
from lit_core.files.temporary import temporary
from lit_core.record import note_input
from lit_valuation.data.fingerprints import fingerprints
from lit_valuation.data.labelled_sets import LabelledSet, write_labelled
from lit_valuation.exchange.manifest import (
    MANIFEST,
    Attachment,
    Contents,
    Manifest,
    Query,
    Shard,
    digest,
    from_bytes,
    to_bytes,
)
from lit_valuation.samples import Samples

#: Most bytes of a manifest and of an index, of what surrounds a sample or a shard in a tar file, and of an attachment.
_MOST_DESCRIPTION, _MOST_AROUND, _MOST_ATTACHED = 1 << 25, 1 << 15, 1 << 32

#: What to do about a damaged set of one's own, at the end and in parentheses.
_OWN_REMEDY = re.compile(
    r"(; |\. )(prepare the s|restore|Restore)[^;)]{0,200}\.$|(\. It may be truncated)?; restore [^;)]{0,200}\.(?=\))"
)


@dataclass(frozen=True)
class Received(Generic[Manifest]):
    """A received folder that passed all checks.

    Args:
        manifest: Its manifest.
        digest: SHA-256 of the manifest.
        samples: Its samples, in the order of the manifest.
        folder: The folder.
    """

    manifest: Manifest
    digest: str
    samples: Samples
    folder: Path


def anonymized(samples: Samples) -> Samples:
    """Return samples as they may be sent: with keys 000000, 000001, …, without groups, with their own classes only."""
    present = list(samples.counts())
    keys = tuple(f"{index:06d}" for index in range(len(samples)))
    return dataclasses.replace(samples, keys=keys, groups=None).renumbered(present)


@contextmanager
def outgoing(
    folder: Path,
    samples: Samples | None,
    kind: str,
    licence: str,
    describe: Callable[[Any], Any],
    stage: Callable[[Path], AbstractContextManager[Path]] | None = None,
    attached: Mapping[str, bytes] = MappingProxyType({}),
    vocabulary: str | None = None,
) -> Iterator[Any]:
    """Write a folder to be sent. It appears under its name when the block ends without an error, or not at all.

    Args:
        folder: Its path.
        samples: Samples to send, as `anonymized` returns them; None for a query without samples.
        kind: ``image``, ``table``, ``embedding`` or ``tokens``.
        licence: Licence of the data.
        describe: Makes the manifest from the contents of samples, and from None without any.
        stage: Makes the folder to write in, as `SharingLedger.staged` does; None for one that no ledger records.
        attached: Contents of the manifest's attachments by name.
        vocabulary: What the token ids mean; None for other inputs.

    Yields:
        The manifest.
    """
    make_folder(folder.parent)
    with temporary(folder, folder=True) if stage is None else stage(folder) as work:
        os.chmod(work, 0o755)
        if samples is not None:
            meta = {"input": kind} | ({} if vocabulary is None else {"vocabulary": vocabulary})
            write_labelled(work, samples, source="", split="", licence=licence, origin="", meta=meta)
        for name, content in attached.items():
            atomic_write(work / name, content)
        manifest = describe(None if samples is None else _contents(work, samples, kind, vocabulary))
        atomic_write(work / MANIFEST, to_bytes(manifest))
        yield manifest
        os.rename(work, folder)
        sync_folder(folder.parent)


@contextmanager
def blamed_on(folder: str | Path) -> Iterator[None]:
    """Turn whatever another party's folder raises while it is read or examined into the one refusal of that folder.

    Its content may be anything, and must not end the work on the others in any other way.

    Args:
        folder: The folder, for messages.

    Raises:
        UserError: If the block raises an exception; the message says why.
    """
    try:
        yield
    except (RunFailure, UserError) as error:  # damage is the sender's fault here, and nothing to be restored
        fault = _OWN_REMEDY.sub("", str(error))
        raise UserError(fault if fault == str(error) else f"{fault}; ask its sender for it again.") from error
    except Exception as error:
        raise UserError(
            f"{folder} cannot be read ({type(error).__name__}: {error}). It is refused; ask its sender for it again."
        ) from error


def incoming(
    folder: str | Path,
    kind: type[Manifest],
    expect_digest: str | None = None,
    check: Callable[[Manifest], None] = lambda manifest: None,
) -> Received[Manifest]:
    """Read a folder that another party sent, and check it against its manifest.

    Args:
        folder: The folder.
        kind: `Query` or `Answer`.
        expect_digest: The digest that its sender read out, or its first 12 or more digits; None detects damage only.
        check: Raises a UserError if the manifest is not what is wanted; called before any sample is read.

    Raises:
        UserError: If a file is missing, not listed, altered or damaged, or differs from what the manifest says.
    """
    with blamed_on(folder):
        return _read(Path(folder), kind, expect_digest, check)


def _read(
    folder: Path, kind: type[Manifest], expect_digest: str | None, check: Callable[[Manifest], None]
) -> Received[Manifest]:
    name = kind.__name__.lower()
    article = "an" if name[0] in "aeiou" else "a"
    path = folder / MANIFEST
    if not path.is_file():
        raise UserError(f"{folder} is not {article} {name}: it has no {MANIFEST}; correct the path.")
    present = _plain_files(folder)
    manifest = from_bytes(kind, path.read_bytes(), str(path))
    note_input(folder)
    sha256 = digest(manifest)
    if expect_digest is not None and (len(expect_digest) < 12 or not sha256.startswith(expect_digest.lower())):
        raise UserError(
            f"{folder} has the digest {sha256}, not the expected {expect_digest}; it was replaced or altered on its "
            "way, so ask its sender for it again."
        )
    check(manifest)
    contents: Contents = manifest.contents
    is_probe = isinstance(manifest, Query) and manifest.probe is not None
    _check_sizes(folder, contents, manifest.attachments, 0 if is_probe else contents.samples)
    _check_files(folder, contents, manifest.attachments, present, is_probe)
    if is_probe:
        nothing = torch.empty(0, dtype=torch.int64)
        return Received(manifest, sha256, Samples(nothing, nothing, tuple(contents.classes), ()), folder)
    labelled = LabelledSet(folder, verify=False)  # the checks have hashed the files; it opens those of the index
    _check_index(folder, contents, labelled)
    samples = labelled.load()
    rules = {
        "has samples of another shape than its manifest says": tuple(samples.x.shape[1:]) == contents.shape,
        "has samples of other classes than its manifest says": samples.counts() == contents.classes,
        "holds another number of samples than its manifest says": len(samples) == contents.samples,
        "holds no sample": len(samples) > 0,
        "repeats a sample": len(set(fingerprints(samples))) == len(samples),
        "has groups": samples.groups is None,
    }
    for fault, holds in rules.items():
        _require(holds, folder, fault)
    return Received(manifest, sha256, samples, folder)


def _plain_files(folder: Path) -> set[str]:
    """Return the names of the files in a folder that holds nothing else and no large description."""
    present = {path.name: path.lstat() for path in folder.iterdir()}
    others = sorted(name for name, status in present.items() if not stat.S_ISREG(status.st_mode))
    _require(not others, folder, f"holds {others[0] if others else ''}, which is not a file but a folder or a link")
    for name in (MANIFEST, INDEX):
        large = name in present and present[name].st_size > _MOST_DESCRIPTION
        _require(not large, folder, f"has a {name} of more than {_MOST_DESCRIPTION >> 20} MiB")
    return set(present)


def _check_sizes(folder: Path, contents: Contents, attachments: Sequence[Attachment], held: int) -> None:
    """Refuse a manifest whose files are larger than the samples that it holds, before one of them is read."""
    counts = list(contents.classes.values())
    _require(bool(counts) and min(counts) >= (contents.target is None), folder, "names a class without samples")
    _require(contents.samples >= 1, folder, "names no sample")
    _require(bool(contents.shape) and min(contents.shape) >= 1, folder, "names an input without values")
    members = sum(len(shard.members) for shard in contents.shards)
    _require(members == 2 * held, folder, f"lists {members} members for {held} samples")
    of_number = 4
    if contents.input == "tokens":  # ids of 8 bytes, and a tag for each
        of_number = 16 + max(len(name.encode(errors="replace")) for name in contents.classes)
    most = held * (of_number * math.prod(contents.shape) + _MOST_AROUND) + len(contents.shards) * _MOST_AROUND
    size = sum(shard.size for shard in contents.shards)
    for one in attachments:
        _require(one.size <= _MOST_ATTACHED, folder, f"lists {one.size:,} bytes of {one.file}")
    _require(size <= most, folder, f"lists {size:,} bytes for {held} samples of shape {contents.shape}")


def _check_files(
    folder: Path, contents: Contents, attachments: Sequence[Attachment], present: set[str], is_probe: bool
) -> None:
    """Compare every file, and every member of every tar file, with the manifest's list; a probe has no tar files."""
    described: list[Shard | Attachment] = [*contents.shards, *attachments]
    own = {MANIFEST} if is_probe else {MANIFEST, INDEX}
    listed = {*own, *(one.file for one in described)}
    unlisted = sorted(present - listed)
    _require(len(described) == len(listed) - len(own), folder, "lists a file twice")
    _require(not is_probe or (contents.index, contents.shards) == ("", ()), folder, "lists samples beside a probe")
    _require(not unlisted, folder, f"holds {', '.join(unlisted[:1])}, which its manifest does not list as a file")
    _require(listed == present, folder, f"lacks {min(listed - present, default='')}")
    same_index = is_probe or file_sha256(folder / INDEX) == contents.index
    _require(same_index, folder, f"has another {INDEX} than its manifest says")
    for one in described:
        path = folder / one.file
        same = path.stat().st_size == one.size and file_sha256(path) == one.sha256
        _require(same, folder, f"was altered or damaged: {one.file} has another SHA-256 than its manifest says")
    for shard in contents.shards:
        path = folder / shard.file
        _require(_members(path) == list(shard.members), folder, f"has other members in {shard.file} than it lists")


def _check_index(folder: Path, contents: Contents, labelled: LabelledSet) -> None:
    """Compare the index with the manifest, before a sample is read."""
    _require(labelled.kind == contents.input, folder, "has inputs of another kind than its manifest says")
    _require(labelled.target == contents.kind, folder, "has targets of another kind than its manifest says")
    _require(labelled.vocabulary == contents.vocabulary, folder, "has another vocabulary than its manifest says")
    _require(labelled.shape == contents.shape, folder, "has inputs of another shape than its manifest says")
    shards = labelled.shards.index["shards"]
    indexed = [(shard["file"], [member["name"] for member in shard["members"]]) for shard in shards]
    listed = [(shard.file, list(shard.members)) for shard in contents.shards]
    _require(indexed == listed, folder, "lists other shards or members than its index")


def _require(holds: bool, folder: Path, fault: str) -> None:
    if not holds:
        raise UserError(f"{folder} {fault}. It is refused; ask its sender for it again.")


def _contents(folder: Path, samples: Samples, kind: str, vocabulary: str | None) -> Contents:
    shards = [
        Shard(path.name, file_sha256(path), path.stat().st_size, tuple(_members(path)))
        for path in sorted(folder.glob("*.tar"))
    ]
    shape, index = tuple(samples.x.shape[1:]), file_sha256(folder / INDEX)
    target, count = (None, None) if samples.target == "class" else (samples.target, len(samples))
    return Contents(kind, shape, samples.counts(), index, tuple(shards), target, count, vocabulary=vocabulary)


def _members(path: Path) -> list[str]:
    """Return the names of the members of a tar file, which holds plain files only, as our own writer writes it.

    `tarfile` itself would follow headers that lead back, and search long ones for hours.
    """
    names, size = [], path.stat().st_size
    try:
        with path.open("rb") as file:
            while (block := file.read(tarfile.BLOCKSIZE)).strip(b"\0"):
                member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
                end = file.tell() + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                if not member.isreg() or not file.tell() <= end <= size:
                    raise tarfile.TarError(f"{member.name} is no plain file, or leads out of it")
                names.append(member.name)
                file.seek(end)
    except tarfile.TarError as error:
        raise UserError(f"{path} is not a valid tar file ({error}); ask its sender for it again.") from error
    return names
