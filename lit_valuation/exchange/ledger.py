"""What a party has given away, to whom, for good: an append-only file of lines that hash each other."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal, get_args

from lit_core.errors import RunFailure, UserError
from lit_core.files.paths import FULL_DISK, locked_folder, sync_folder
from lit_valuation.samples import Samples

Event = Literal["query", "answer", "received", "withdrawal"]
#: Name of a party's ledger in the folder of its data.
LEDGER = "ledger.jsonl"
#: Events that disclose samples to the other party.
DISCLOSING = ("query", "answer")
_START = "0" * 64


@dataclass(frozen=True)
class Entry:
    """A line of the ledger.

    Args:
        event: What happened: a query or an answer left, an answer was received, or something was withdrawn.
        counterparty: Name of the other party.
        digest: Digest of the manifest that crossed.
        budget: Most samples that could have crossed.
        samples: The samples: their names at home and the SHA-256 of their content and label.
        notes: Anything else worth keeping, as plain values.
        time: When, as ISO 8601 in UTC.
        previous: Hash of the line before.
        hash: SHA-256 of all the above.
    """

    event: Event
    counterparty: str
    digest: str
    budget: int
    samples: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    time: str = ""
    previous: str = _START
    hash: str = ""

    def hashed(self) -> str:
        """Return the hash that the line must have."""
        content = {key: value for key, value in asdict(self).items() if key != "hash"}
        return hashlib.sha256(_dump(content).encode()).hexdigest()


class SharingLedger:
    """A party's ledger.

    Each line carries its own hash and that of the line before, so a damaged, changed, removed or moved line is found;
    only lines cut off at the end are not, for which the last hash is printed and can be kept elsewhere. A withdrawal is
    a line of its own and gives nothing back: what was seen stays seen.

    Args:
        path: The file, usually ``ledger.jsonl`` beside the party's data; made with the first line.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def entries(self) -> list[Entry]:
        """Read and check all lines.

        Raises:
            UserError: If a line is damaged; the message names it.
        """
        if not self.path.exists():
            return []
        entries: list[Entry] = []
        for number, line in enumerate(self.path.read_bytes().split(b"\n")[:-1] + self._torn(), start=1):
            entry = _parse(line)
            if entry is None or entry.hash != entry.hashed():
                raise UserError(f"{self.path}, line {number}, is damaged; restore the ledger from a copy.")
            if entry.previous != (entries[-1].hash if entries else _START):
                raise UserError(
                    f"{self.path}, line {number}, does not follow the line before it: a line was removed, added or "
                    "moved; restore the ledger from a copy."
                )
            entries.append(entry)
        return entries

    def disclosed(self, counterparty: str) -> set[str]:
        """Return the hashes of all samples that a party has been given, withdrawn or not."""
        given = [e for e in self.entries() if e.counterparty == counterparty and e.event in DISCLOSING]
        return {sha256 for entry in given for sha256 in entry.samples.values()}

    def withdrawn(self) -> set[str]:
        """Return the digests of what was withdrawn."""
        return {entry.digest for entry in self.entries() if entry.event == "withdrawal"}

    def find(self, event: Event, digest: str) -> Entry | None:
        """Return the last line of an event and a digest, if there is one."""
        found = [entry for entry in self.entries() if (entry.event, entry.digest) == (event, digest)]
        return found[-1] if found else None

    def withdraw(self, digest: str, reason: str = "") -> None:
        """Record that what has this digest is not to be used any more; the other party must be told.

        Args:
            digest: Digest of a manifest that left or came in.
            reason: Why.

        Raises:
            UserError: If the ledger knows no such digest.
        """
        with self.locked():
            known = [entry for entry in self.entries() if entry.digest == digest]
            if not known:
                raise UserError(f"digest is {digest}, which {self.path} does not know; give one of its digests.")
            for counterparty in dict.fromkeys(entry.counterparty for entry in known):
                self.append(Entry("withdrawal", counterparty, digest, 0, notes={"reason": reason}))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep others from appending, from a look at the ledger until what follows from it is written.

        Raises:
            UserError: If another command is at work on it.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with locked_folder(self.path.parent, f"{self.path} is in use by another command; wait for it."):
            yield

    def append(self, entry: Entry) -> Entry:
        """Append a line, whole or not at all; to be called under `locked`.

        Args:
            entry: The line, without time and hashes.

        Returns:
            The line as written.

        Raises:
            UserError: If the ledger is damaged.
            RunFailure: If the disk is full.
        """
        entries = self.entries()
        content = asdict(entry) | {
            "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "previous": entries[-1].hash if entries else _START,
        }
        unsigned = Entry(**content)
        line = _dump(content | {"hash": unsigned.hashed()}).encode() + b"\n"
        ended = b"\n" if entries and self._torn() else b""  # an editor took the last line's end away
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            size = os.fstat(handle).st_size
            try:
                if os.write(handle, ended + line) < len(ended + line):
                    raise OSError(FULL_DISK[0], os.strerror(FULL_DISK[0]))
                os.fsync(handle)
            except OSError as error:
                os.ftruncate(handle, size)
                if error.errno not in FULL_DISK:
                    raise
                raise RunFailure(
                    f"The disk is full: {self.path} was left as it was; free some space and repeat."
                ) from error
        finally:
            os.close(handle)
        sync_folder(self.path.parent)
        written = _parse(line)
        assert written is not None
        return written

    def _torn(self) -> list[bytes]:
        """Return what stands behind the last line's end: nothing, or part of a line."""
        rest = self.path.read_bytes().rpartition(b"\n")[2]
        return [rest] if rest else []


def fingerprints(samples: Samples) -> tuple[str, ...]:
    """Return the SHA-256 of each sample's content and label, whatever it is called."""
    found = []
    for x, y in zip(samples.x, samples.y.tolist(), strict=True):
        head = f"{x.dtype} {tuple(x.shape)} {samples.classes[y]}\n".encode()
        found.append(hashlib.sha256(head + x.contiguous().numpy().tobytes()).hexdigest())
    return tuple(found)


def named_fingerprints(samples: Samples, names: Sequence[str]) -> dict[str, str]:
    """Return the SHA-256 of each sample by its name at home."""
    return dict(zip(names, fingerprints(samples), strict=True))


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _parse(line: bytes) -> Entry | None:
    try:
        content = json.loads(line)
        entry = Entry(**content)
        # the very bytes: nothing may hide in blanks or repeated keys
        whole = _dump(content).encode() == line.rstrip(b"\n") and entry.event in get_args(Event)
        return entry if whole and isinstance(entry.samples, dict) else None
    except (ValueError, TypeError):
        return None
