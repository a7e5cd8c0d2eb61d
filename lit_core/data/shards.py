"""Shard sets: folders of tar shards with an index.

A shard set is a folder of webdataset tar files and an ``index.json`` with the offset of each member. Samples are read
by these offsets. ``tar`` and webdataset can read the same files.
"""

from __future__ import annotations

import hashlib
import io
import json
import mmap
import os
import tarfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from lit_core.errors import RunFailure, UserError
from lit_core.files.arrays import parse_npy
from lit_core.files.formats import check_format, stamp
from lit_core.files.json_files import parse_json, read_json
from lit_core.files.paths import atomic_path, atomic_write, file_sha256
from lit_core.files.working_folder import RECORD, read_prepared
from lit_core.record import hidden_values, note_input

FORMAT, INDEX = "litshift-shards", "index.json"
SPLITS = ("train", "val", "test")
EXTENSIONS = ("json", "npy", "txt", "jpg", "jpeg", "png")
#: Levels above a set at which its record may lie, as for ``owners/NAME/train``.
_RECORDED_ABOVE = 3

#: Inode, size, time of change and hash of the shards that this process has compared.
_verified: set[tuple[int, int, int, int, str]] = set()


def write_shard(path: str | Path, samples: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Write samples to one tar file, atomically.

    Equal samples give equal bytes: times and owners are fixed.

    Args:
        path: The tar file, such as ``train/000000.tar``.
        samples: Dicts with a unique ``__key__`` and members by extension: ``npy`` an array (one-dimensional integers
            are counted as tokens), ``json`` plain values, ``txt`` a string, ``jpg``/``jpeg``/``png`` encoded bytes.
            ``__text_bytes__`` gives the bytes of the text that a sample encodes; only their sum is stored.

    Returns:
        The shard's entry for :func:`write_index`.

    Raises:
        UserError: If a sample has no key, a key used before, or a member that is not of the kinds above.
        RunFailure: If the disk is full; no file is left.
    """
    from webdataset.writer import TarWriter

    path = Path(path)
    tokens: dict[str, int] = {}
    keys: set[str] = set()
    text_bytes = 0
    with atomic_path(path) as temporary:
        with (
            temporary.open("wb") as file,
            TarWriter(file, user="litshift", group="litshift", mode=0o644, mtime=0, encoder=False) as writer,
        ):
            for sample in samples:
                key = _key(sample, keys, path)
                encoded: dict[str, Any] = {"__key__": key}
                for extension, value in sample.items():
                    if extension.startswith("__"):
                        continue
                    name = f"{key}.{extension}"
                    encoded[extension] = _encode(extension, value, f"{path}:{name}")
                    if extension == "npy" and np.ndim(value) == 1 and np.asarray(value).dtype.kind in "ui":
                        tokens[name] = len(value)
                text_bytes += int(sample.get("__text_bytes__", 0))
                writer.write(encoded)
        digest, size = file_sha256(temporary), temporary.stat().st_size
        with tarfile.open(temporary) as archive:
            members = [
                {"name": member.name, "offset": member.offset_data, "size": member.size}
                | ({"tokens": tokens[member.name]} if member.name in tokens else {})
                for member in archive
            ]
    return {
        "file": path.name,
        "sha256": digest,
        "size": size,
        "samples": len(keys),
        "tokens": sum(tokens.values()),
        "text_bytes": text_bytes,
        "members": members,
    }


def write_index(
    folder: str | Path,
    entries: Sequence[Mapping[str, Any]],
    *,
    kind: str,
    source: str,
    split: str,
    licence: str = "",
    origin: str = "",
    tokenizer: Mapping[str, Any] | None = None,
    dtype: str | None = None,
    meta: Mapping[str, Any] | None = None,
) -> None:
    """Write ``index.json``, which makes a folder of shards a shard set.

    Args:
        folder: The folder of the shards.
        entries: Entries that :func:`write_shard` returned, in the order of the samples.
        kind: What a sample is, such as ``tokens``.
        source: Name of the source, such as ``austen``.
        split: ``train``, ``val`` or ``test``.
        licence: Licence of the data.
        origin: Where the data come from.
        tokenizer: ``sha256``, ``vocab_size``, ``end_of_text`` and, if any, ``start`` of the tokenizer; None if samples
            are not tokens.
        dtype: ``uint16`` or ``uint32``, the type in which tokens are stored; None if samples are not tokens.
        meta: Further facts, as plain values.
    """
    index = {
        **stamp(FORMAT),
        "kind": kind,
        "source": source,
        "split": split,
        "licence": licence,
        "origin": hidden_values(origin),
        "tokenizer": None if tokenizer is None else dict(tokenizer),
        "dtype": dtype,
        **{total: sum(entry[total] for entry in entries) for total in ("samples", "tokens", "text_bytes")},
        "shards": list(entries),
        "meta": dict(meta or {}),
    }
    atomic_write(Path(folder) / INDEX, json.dumps(index, ensure_ascii=False))


def splits_of(folder: Path) -> list[str]:
    """Return the names of the splits that a source has, in the order train, val, test.

    Args:
        folder: Folder of the source, with a shard set per split.
    """
    return [split for split in SPLITS if (folder / split).is_dir()]


class ShardSet:
    """A folder of shards, read by offset: sample i is the dict of its decoded members.

    Opening compares each shard with the size and the SHA-256 in the index; a file is hashed once per process, unless it
    changes. Nothing is unpickled, and no member is written to disk. Data-loading processes may use it, whether forked
    or spawned.

    Args:
        folder: Folder with ``index.json`` and the tar files.
        verify: Whether the hashes are compared. Without them, only the index may be relied on.

    Attributes:
        index: The parsed ``index.json``.
        members: Shard index, name, offset, size in bytes and number of tokens of each member, in order.

    Raises:
        UserError: If the index or a shard is missing or malformed, or a shard is not what the index describes.
    """

    def __init__(self, folder: str | Path, verify: bool = True) -> None:
        self.folder = Path(folder)
        self.index = _read_index(self.folder)
        self.files = [self.folder / shard["file"] for shard in self.index["shards"]]
        self.members: list[tuple[int, str, int, int, int]] = []
        self._samples: list[list[int]] = []
        for number, shard in enumerate(self.index["shards"]):
            samples: dict[str, list[int]] = {}
            for member in shard["members"]:
                key = _split_name(member["name"])[0]
                samples.setdefault(key, []).append(len(self.members))
                self.members.append((number, member["name"], member["offset"], member["size"], member.get("tokens", 0)))
            self._samples.extend(samples.values())
        self._buffers: dict[int, np.ndarray] = {}
        if verify:
            self._verify()
        about = {key: self.index[key] for key in ("source", "split", "samples", "tokens")}
        about |= {key: self.index.get(key) for key in ("licence", "origin")}
        note_input(folder, **about, tokenizer_sha256=(self.index["tokenizer"] or {}).get("sha256"))

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one sample: ``__key__`` and its decoded members by extension.

        Raises:
            RunFailure: If the file is damaged.
        """
        return self.read(index)

    def read(self, index: int, extensions: Collection[str] = EXTENSIONS) -> dict[str, Any]:
        """Return ``__key__`` and the decoded members of one sample that have the given extensions.

        Raises:
            RunFailure: If the file is damaged.
        """
        sample: dict[str, Any] = {}
        for number in self._samples[index]:
            shard, name, offset, size, _ = self.members[number]
            sample["__key__"], extension = _split_name(name)
            if extension not in extensions:
                continue
            content = self.buffer(shard)[offset : offset + size].tobytes()
            try:
                sample[extension] = _decode(extension, content)
            except ValueError as error:  # UnicodeDecodeError and UserError, too
                raise RunFailure(
                    f"{self.files[shard]} is damaged: its member {name} cannot be decoded ({error}); "
                    "prepare the source again or restore the file."
                ) from error
        return sample

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_buffers": {}}  # each process maps the files itself

    def buffer(self, shard: int) -> np.ndarray:
        """Map one shard's bytes into memory.

        Args:
            shard: Index of the shard.

        Returns:
            The file's bytes, uint8, read-only.

        Raises:
            RunFailure: If the file was removed, or its size changed, after the set was opened.
        """
        if shard not in self._buffers:
            path, size = self.files[shard], self.index["shards"][shard]["size"]
            try:
                with path.open("rb") as file:
                    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:
                raise RunFailure(f"{path} could be opened before but not now ({error}); restore the file.") from error
            if len(mapped) != size:
                raise RunFailure(f"{path} has {len(mapped)} bytes now but had {size}; restore the file.")
            self._buffers[shard] = np.frombuffer(mapped, dtype=np.uint8)
        return self._buffers[shard]

    @property
    def content(self) -> str:
        """SHA-256 of all shards' SHA-256: sets with the same samples in the same order have the same."""
        return hashlib.sha256("".join(shard["sha256"] for shard in self.index["shards"]).encode()).hexdigest()

    def _verify(self) -> None:
        if not _is_as_recorded(self.folder):
            raise UserError(
                f"{self.folder / INDEX} is damaged: its SHA-256 is not the one that {RECORD} has; prepare the source "
                "again or restore the file."
            )
        for path, shard in zip(self.files, self.index["shards"], strict=True):
            status = path.stat()
            known = (status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns, shard["sha256"])
            if known in _verified:
                continue
            if file_sha256(path) != shard["sha256"]:
                raise UserError(
                    f"{path} is damaged: its SHA-256 is not the one in {INDEX}; prepare the source again or restore "
                    "the file."
                )
            _verified.add(known)


def _is_as_recorded(folder: Path) -> bool:
    """Tell whether an index is what ``prepare`` wrote, so far as a readable record above it knows the set."""
    for above in list(folder.absolute().parents)[:_RECORDED_ABOVE]:
        if (above / RECORD).is_file():
            with suppress(UserError):  # damaged, or something else of that name
                name = folder.absolute().relative_to(above).as_posix()
                recorded = read_prepared(above / RECORD, "").get("sets", {}).get(name)
                return recorded in (None, file_sha256(folder / INDEX))
    return True


def _key(sample: Mapping[str, Any], keys: set[str], path: Path) -> str:
    key = sample.get("__key__")
    if not isinstance(key, str) or not key or "." in PurePosixPath(key).name or not _stays_inside(key):
        raise UserError(f"{path}: __key__ is {key!r}, but must be a relative name without a dot; rename the sample.")
    if key in keys:
        raise UserError(f"{path}: __key__ {key!r} occurs twice; give each sample of a shard its own key.")
    keys.add(key)
    return key


def _encode(extension: str, value: Any, where: str) -> bytes:
    if extension == "npy":
        array = np.asarray(value)
        if array.dtype.hasobject:
            raise UserError(f"{where} is an array of objects, which would be pickled; store numbers or use json.")
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
        return buffer.getvalue()
    if extension == "json":
        return json.dumps(value, ensure_ascii=False).encode()
    if extension == "txt" and isinstance(value, str):
        return value.encode()
    if extension in ("jpg", "jpeg", "png") and isinstance(value, bytes):
        return value
    raise UserError(f"{where} is a {type(value).__name__}; members are {', '.join(EXTENSIONS)} of the fitting type.")


def _decode(extension: str, content: bytes) -> Any:
    if extension == "npy":
        return parse_npy(content)
    if extension == "json":
        return parse_json(content, "it", Any)
    return content.decode() if extension == "txt" else content


def _split_name(name: str) -> tuple[str, str]:
    """Split a member's name as webdataset does: the extension begins at the first dot of the last component."""
    folder, slash, last = name.rpartition("/")
    stem, _, extension = last.partition(".")
    return folder + slash + stem, extension


def _stays_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not (path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name)


def _read_index(folder: Path) -> dict[str, Any]:
    path = folder / INDEX
    if not path.is_file():
        raise UserError(f"{folder} is not a shard set: it has no {INDEX}; prepare the source or correct the path.")
    index: Any = read_json(path, remedy="prepare the source again")

    def require(holds: bool, rule: str) -> None:
        if not holds:
            raise UserError(f"{path} is malformed: {rule}; prepare the source again.")

    check_format(FORMAT, index, path, "prepare the source again")
    tokenizer = index.get("tokenizer")
    known = isinstance(tokenizer, dict) and isinstance(tokenizer.get("sha256"), str)
    known = known and _counts(tokenizer, "vocab_size", "end_of_text")
    require(tokenizer is None or known, '"tokenizer" must be null or have "sha256", "vocab_size" and "end_of_text"')
    starts = (tokenizer or {}).get("start", [])
    whole = isinstance(starts, list) and all(type(each) is int and 0 <= each < 1 << 32 for each in starts)
    require(whole, '"start" of "tokenizer" must be a list of token ids')
    require(index.get("dtype") in (None, "uint16", "uint32"), '"dtype" must be "uint16", "uint32" or null')
    require(isinstance(index.get("meta"), dict), '"meta" must be an object')
    require({"tokenizer", "dtype"} <= index.keys(), '"tokenizer" and "dtype" must be there')
    for key in ("kind", "source", "split"):
        require(isinstance(index.get(key), str), f'"{key}" must be a string')
    shards = index.get("shards")
    require(isinstance(shards, list), '"shards" must be a list')
    for shard in shards:
        require(isinstance(shard, dict), "each shard must be an object")
        file = shard.get("file")
        plain = isinstance(file, str) and file.endswith(".tar") and Path(file).name == file and _stays_inside(file)
        require(plain, f"the shard's file {file!r} must be the plain name of a .tar in the same folder")
        require(isinstance(shard.get("sha256"), str), f'{file}: "sha256" must be a string')
        require(_counts(shard, "size", "samples", "tokens", "text_bytes"), f"{file}: sizes must be integers from 0")
        require(isinstance(shard.get("members"), list), f'{file}: "members" must be a list')
        for member in shard["members"]:
            name = member.get("name") if isinstance(member, dict) else None
            require(isinstance(name, str) and _stays_inside(name), f"{file}: member {name!r} would leave its folder")
            assert isinstance(name, str)
            require(_split_name(name)[1] in EXTENSIONS, f"{file}: member {name!r} is not of {', '.join(EXTENSIONS)}")
            inside = _counts(member, "offset", "size") and member["offset"] + member["size"] <= shard["size"]
            require(inside, f"{file}: member {name!r} does not lie within the file")
            require(_counts({"tokens": 0} | member, "tokens"), f"{file}: tokens of {name!r} must be an integer from 0")
        keys = {_split_name(member["name"])[0] for member in shard["members"]}
        require(len(keys) == shard["samples"], f'{file}: "samples" must be {len(keys)}, the keys of its members')
        _check_size(folder / file, shard["size"])
    for total in ("samples", "tokens", "text_bytes"):
        require(index.get(total) == sum(shard[total] for shard in shards), f'"{total}" is not the sum over the shards')
    return index


def _counts(entry: Mapping[str, Any], *keys: str) -> bool:
    return all(type(entry.get(key)) is int and 0 <= entry[key] < 1 << 63 for key in keys)


def _check_size(path: Path, size: int) -> None:
    try:
        actual = os.stat(path).st_size
    except (OSError, ValueError):  # also a name that no file can have
        raise UserError(f"{path} is missing; prepare the source again or restore the file.") from None
    if actual != size:
        raise UserError(
            f"{path} has {actual} bytes, but {INDEX} says {size}; prepare the source again or restore the file."
        )
