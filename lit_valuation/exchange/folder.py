"""Folders that are exchanged: a labelled shard set with a manifest. Writing is atomic; reading trusts nothing."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tarfile
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

from lit_core.data.shards import INDEX
from lit_core.errors import RunFailure, UserError
from lit_core.files.paths import atomic_write, file_sha256, make_folder, sync_folder
from lit_core.record import note_input
from lit_valuation.data.labelled_sets import LabelledSet, write_labelled
from lit_valuation.exchange.ledger import fingerprints
from lit_valuation.exchange.manifest import MANIFEST, Contents, Manifest, Shard, digest, from_bytes, printable, to_bytes
from lit_valuation.samples import Samples


@dataclass(frozen=True)
class Received(Generic[Manifest]):
    """A received folder that passed all checks.

    Args:
        manifest: Its manifest.
        digest: SHA-256 of the manifest.
        samples: Its samples, in the order of the manifest.
    """

    manifest: Manifest
    digest: str
    samples: Samples


def anonymized(samples: Samples) -> Samples:
    """Return samples as they may be sent: with keys 000000, 000001, …, without groups, with their own classes only."""
    present = [name for c, name in enumerate(samples.classes) if (samples.y == c).any()]
    keys = tuple(f"{index:06d}" for index in range(len(samples)))
    return dataclasses.replace(samples, keys=keys, groups=None).renumbered(present)


@contextmanager
def outgoing(
    folder: Path, samples: Samples, kind: str, licence: str, describe: Callable[[Contents], Any]
) -> Iterator[Any]:
    """Write a folder to be sent. It appears under its name when the block ends without an error, or not at all.

    Args:
        folder: Its path.
        samples: Samples to send, as `anonymized` returns them.
        kind: ``image``, ``table`` or ``embedding``.
        licence: Licence of the data.
        describe: Makes the manifest from the contents.

    Yields:
        The manifest.
    """
    make_folder(folder.parent)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
    try:
        os.chmod(work, 0o755)
        write_labelled(work, samples, source="", split="", licence=licence, origin="", meta={"input": kind})
        manifest = describe(_contents(work, samples, kind))
        atomic_write(work / MANIFEST, to_bytes(manifest))
        yield manifest
        os.rename(work, folder)
        sync_folder(folder.parent)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def incoming(folder: str | Path, kind: type[Manifest], expect_digest: str | None = None) -> Received[Manifest]:
    """Read a folder that another party sent, and check it against its manifest.

    Args:
        folder: The folder.
        kind: `Query` or `Answer`.
        expect_digest: The digest that its sender read out, or its first 12 or more digits; None detects damage only.

    Raises:
        UserError: If a file is missing, not listed, altered or damaged, or differs from what the manifest says.
    """
    folder = Path(folder)
    name = kind.__name__.lower()
    article = "an" if name[0] in "aeiou" else "a"
    path = folder / MANIFEST
    if not path.is_file():
        raise UserError(f"{folder} is not {article} {name}: it has no {MANIFEST}; correct the path.")
    manifest = from_bytes(kind, path.read_bytes(), str(path))
    note_input(folder)
    sha256 = digest(manifest)
    if expect_digest is not None and (len(expect_digest) < 12 or not sha256.startswith(expect_digest.lower())):
        raise UserError(
            f"{folder} has the digest {sha256}, not the expected {expect_digest}; it was replaced or altered on its "
            "way, so ask its sender for it again."
        )
    contents: Contents = manifest.contents
    _check_files(folder, contents)
    try:
        labelled = LabelledSet(folder)  # only after the checks: it opens the files that the index names
        _check_index(folder, contents, labelled)
        samples = labelled.load()
    except (RunFailure, UserError) as error:  # damage is the sender's fault here, not this program's
        raise UserError(printable(str(error))) from error
    counts = Counter(samples.classes[number] for number in samples.y.tolist())
    rules = {
        "has inputs of another kind than its manifest says": labelled.kind == contents.input,
        "has inputs of another shape than its manifest says": (
            labelled.shape == contents.shape == tuple(samples.x.shape[1:])
        ),
        "has samples of other classes than its manifest says": dict(counts) == contents.classes,
        "holds no sample": len(samples) > 0,
        "repeats a sample": len(set(fingerprints(samples))) == len(samples),
        "has groups": samples.groups is None,
    }
    for fault, holds in rules.items():
        _require(holds, folder, fault)
    return Received(manifest, sha256, samples)


def _check_files(folder: Path, contents: Contents) -> None:
    """Compare every file, and every member of every tar file, with the manifest's list."""
    listed = {MANIFEST, INDEX, *(shard.file for shard in contents.shards)}
    present = {path.name: path for path in folder.iterdir()}
    unlisted = sorted(name for name, path in present.items() if name not in listed or not path.is_file())
    _require(len(contents.shards) == len(listed) - 2, folder, "lists a shard twice")
    _require(not unlisted, folder, f"holds {', '.join(unlisted[:1])}, which its manifest does not list as a file")
    _require(listed == present.keys(), folder, f"lacks {min(listed - present.keys(), default='')}")
    _require(file_sha256(folder / INDEX) == contents.index, folder, f"has another {INDEX} than its manifest says")
    for shard in contents.shards:
        path = folder / shard.file
        same = path.stat().st_size == shard.size and file_sha256(path) == shard.sha256
        _require(same, folder, f"was altered or damaged: {shard.file} has another SHA-256 than its manifest says")
        _require(_members(path) == list(shard.members), folder, f"has other members in {shard.file} than it lists")


def _check_index(folder: Path, contents: Contents, labelled: LabelledSet) -> None:
    """Compare the index with the manifest's list."""
    shards = labelled.shards.index["shards"]
    indexed = [(shard["file"], [member["name"] for member in shard["members"]]) for shard in shards]
    listed = [(shard.file, list(shard.members)) for shard in contents.shards]
    _require(indexed == listed, folder, "lists other shards or members than its index")


def _require(holds: bool, folder: Path, fault: str) -> None:
    if not holds:
        raise UserError(f"{folder} {printable(fault)}. It is refused; ask its sender for it again.")


def _contents(folder: Path, samples: Samples, kind: str) -> Contents:
    counts = Counter(samples.classes[number] for number in samples.y.tolist())
    shards = [
        Shard(path.name, file_sha256(path), path.stat().st_size, tuple(_members(path)))
        for path in sorted(folder.glob("*.tar"))
    ]
    return Contents(kind, tuple(samples.x.shape[1:]), dict(counts), file_sha256(folder / INDEX), tuple(shards))


def _members(path: Path) -> list[str]:
    try:
        with tarfile.open(path, "r:") as archive:  # only uncompressed: a compressed file could unpack to any size
            return [member.name for member in archive if member.isfile() or member.name]
    except tarfile.TarError as error:
        raise UserError(f"{path} is not a valid tar file ({error}); ask its sender for it again.") from error
