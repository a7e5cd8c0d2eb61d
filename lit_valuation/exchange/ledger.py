"""The ledger of a party: which samples it disclosed to whom, as an append-only file of hash-chained lines."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args

from lit_core.errors import RunFailure, UserError
from lit_core.files.formats import FORMATS, check_format
from lit_core.files.json_files import parse_json
from lit_core.files.outputs import output_file
from lit_core.files.paths import FULL_DISK, locked_folder, make_folder, sync_folder
from lit_valuation.data.fingerprints import fingerprints
from lit_valuation.exchange.parties import canonical_name, recorded_names
from lit_valuation.exchange.staging import finish_staged, noted_lines, staged
from lit_valuation.samples import Samples

Event = Literal["query", "answer", "received", "withdrawal"]
#: Name of a party's ledger in the folder of its data.
LEDGER = "ledger.jsonl"
#: Name of the format of its lines.
FORMAT = "litshift-ledger"
#: Events that disclose samples to the other party.
DISCLOSING = ("query", "answer")
_START = "0" * 64


class _Notes(TypedDict, total=False):
    """What is read of the notes of a line."""

    query: str
    contents: list[str]
    disputed: list[str]


class _Line(TypedDict, total=False):
    """Content of a line, as far as its types are checked."""

    counterparty: str
    digest: str
    budget: int
    samples: dict[str, str]
    notes: _Notes


class InUse(UserError):
    """Another command holds the lock of the ledger."""


@dataclass(frozen=True)
class Entry:
    """A line of the ledger.

    Args:
        event: A query or an answer was sent, an answer was received, or one of them was withdrawn.
        counterparty: Name of the other party.
        digest: Digest of the manifest that was exchanged.
        budget: Most samples that could have been disclosed.
        samples: SHA-256 of each sample's content and label, by the owner's own name of the sample.
        notes: Further facts, as plain values.
        time: Time of the entry, as ISO 8601 in UTC.
        previous: Hash of the previous line.
        hash: SHA-256 of all other fields.
        version: Version of the line's format; lines of version 0 do not tell it.
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
    version: int = 0

    def hashed(self) -> str:
        """Return the hash that the line must have: the SHA-256 of all other fields."""
        unhashed = ("hash",) if self.version else ("hash", "version")
        content = {key: value for key, value in asdict(self).items() if key not in unhashed}
        return hashlib.sha256(_dump(content).encode()).hexdigest()


class SharingLedger:
    """A party's ledger.

    Each line holds its own hash and that of the previous line, so a damaged, changed, removed or moved line is found.
    Lines that were cut off at the end cannot be found from the file alone; copies of the file protect against that. A
    withdrawal is a line of its own and does not reduce what was disclosed: what was seen stays seen.

    Args:
        path: The file, usually ``ledger.jsonl`` in the folder of the party's data; created with the first line.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def entries(self) -> list[Entry]:
        """Read and check all lines.

        Raises:
            UserError: If a line is damaged, changed, missing or moved; the message names it.
        """
        if not self.path.exists():
            return []
        entries: list[Entry] = []
        for number, line in enumerate(self.path.read_bytes().split(b"\n")[:-1] + self._torn(), start=1):
            _check_version(line, f"{self.path}, line {number},")
            entry = _parse(line)
            if entry is None or entry.hash != entry.hashed():
                raise UserError(f"{self.path}, line {number}, is damaged. Restore the ledger from a copy.")
            if entry.previous != (entries[-1].hash if entries else _START):
                raise UserError(
                    f"{self.path}, line {number}, does not follow the line before it: a line was removed, added or "
                    "moved. Restore the ledger from a copy."
                )
            entries.append(entry)
        return entries

    def recorded_names(self, names: Sequence[str], argument: str, new_party: bool) -> list[str]:
        """Return the names of parties as this ledger records them; see `lit_valuation.exchange.parties`.

        Args:
            names: The names as typed.
            argument: Name of the argument, for error messages.
            new_party: Whether names may be new to this ledger.

        Raises:
            UserError: If a name is empty, repeated, or new without the word.
        """
        known = (entry.counterparty for entry in self.entries())
        return recorded_names(names, argument, known, new_party, self.path)

    def disclosed(self, counterparty: str | None = None) -> set[str]:
        """Return the SHA-256 of all samples that were sent to a party, withdrawn or not.

        Args:
            counterparty: The party, in any spelling; None means all parties together.
        """
        party = None if counterparty is None else canonical_name(counterparty)
        given = [e for e in self.entries() if e.event in DISCLOSING and party in (None, canonical_name(e.counterparty))]
        return {sha256 for entry in given for sha256 in entry.samples.values()}

    def answered(self, query: str) -> set[str]:
        """Return the names of the parties to which answers to a query were sent, as they were recorded first.

        Args:
            query: Digest of the query.
        """
        answers = [entry for entry in self.entries() if entry.event == "answer" and entry.notes.get("query") == query]
        return {self.recorded_names([entry.counterparty], "counterparty", False)[0] for entry in answers}

    def withdrawn(self) -> set[str]:
        """Return the digests of withdrawn queries and answers."""
        return {entry.digest for entry in self.entries() if entry.event == "withdrawal"}

    def givers(self) -> dict[str, tuple[str, str]]:
        """Return which party gave each sample that was received first, and for which query.

        Returns:
            The party's canonical name, empty where two parties gave the sample at once, and the query's digest; by the
            hash of the sample's content and label, and in lines that have it by that of its content alone.
        """
        found: dict[str, tuple[str, str]] = {}
        for entry in self.entries():
            if entry.event != "received":
                continue
            disputed = set(entry.notes.get("disputed", []))
            for sha256 in [*entry.samples.values(), *entry.notes.get("contents", [])]:
                giver = "" if sha256 in disputed else canonical_name(entry.counterparty)
                if sha256 not in found or entry.notes.get("credited"):
                    found[sha256] = (giver, str(entry.notes.get("query", "")))
        return found

    def credit(self, digest: str, counterparty: str) -> None:
        """Record whose an answer is that several parties gave: its samples count for this party from now on.

        Args:
            digest: Digest of the answer.
            counterparty: The party, by the name under which its answer was received.

        Raises:
            UserError: If the ledger knows no such answer of that party.
        """
        with self.locked():
            entry = self.find("received", digest, counterparty)
            if entry is None:
                raise UserError(
                    f"{self.path} received no answer {digest} from {counterparty}; give a digest and a party of it."
                )
            notes = {key: value for key, value in entry.notes.items() if key != "disputed"} | {"credited": True}
            self.append(Entry("received", entry.counterparty, digest, entry.budget, entry.samples, notes))

    def find(self, event: Event, digest: str, counterparty: str | None = None) -> Entry | None:
        """Return the last entry with this event and digest, of this party unless it is None; None if there is none."""
        party = None if counterparty is None else canonical_name(counterparty)
        matching = [
            entry
            for entry in self.entries()
            if (entry.event, entry.digest) == (event, digest) and party in (None, canonical_name(entry.counterparty))
        ]
        return matching[-1] if matching else None

    def withdraw(self, digest: str, reason: str = "") -> None:
        """Record that a query or an answer must not be used any more; tell the other party as well.

        Args:
            digest: Digest of a manifest that was sent or received.
            reason: Reason of the withdrawal.

        Raises:
            UserError: If the ledger does not know the digest.
        """
        with self.locked():
            known = [entry for entry in self.entries() if entry.digest == digest]
            if not known:
                raise UserError(f"digest is {digest}, which {self.path} does not know; give a digest that it records.")
            for counterparty in dict.fromkeys(entry.counterparty for entry in known):
                self.append(Entry("withdrawal", counterparty, digest, 0, notes={"reason": reason}))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the ledger, so that nobody appends between reading it and writing what follows from it.

        Raises:
            InUse: If another command holds the lock.
        """
        make_folder(self.path.parent)
        with ExitStack() as stack:
            try:
                busy = f"{self.path} is in use by another command; wait for it."
                stack.enter_context(locked_folder(self.path.parent, busy))
            except UserError as error:
                raise InUse(str(error)) from error
            yield

    def staged(self, target: Path) -> AbstractContextManager[Path]:
        """Return a context in which a folder to be sent is written and recorded; see `lit_valuation.exchange.staging`.

        Call this while the ledger is `locked`.

        Args:
            target: The folder.
        """
        return staged(self._note, len(self.entries()), target)

    def finish_staged(self) -> None:
        """Complete the folder that a killed command has recorded, or remove what it has not."""
        if self._note.is_file():
            with suppress(InUse), self.locked():
                if self._note.is_file():
                    later = self.entries()[noted_lines(self._note) :]
                    finish_staged(self._note, {entry.digest for entry in later if entry.event in DISCLOSING})

    @property
    def _note(self) -> Path:
        return self.path.with_name(f".{self.path.name}.staged.json")

    def append(self, *new: Entry) -> Entry:
        """Append lines, all of them whole or none at all. Call this while the ledger is `locked`.

        Args:
            new: The lines, without time and hashes.

        Returns:
            The last line as written.

        Raises:
            UserError: If the ledger is damaged.
            RunFailure: If the disk is full.
        """
        entries = self.entries()
        lines, previous = b"", entries[-1].hash if entries else _START
        for entry in new:
            content = asdict(entry) | {
                "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                "previous": previous,
                "version": FORMATS[FORMAT][0],
            }
            previous = Entry(**content).hashed()
            lines += _dump(content | {"hash": previous}).encode() + b"\n"
        ended = b"\n" if entries and self._torn() else b""  # an editor removed the newline of the last line
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            size = os.fstat(handle).st_size
            try:
                if os.write(handle, ended + lines) < len(ended + lines):
                    raise OSError(FULL_DISK[0], os.strerror(FULL_DISK[0]))
                os.fsync(handle)
            except OSError as error:
                os.ftruncate(handle, size)
                if error.errno not in FULL_DISK:
                    raise
                raise RunFailure(
                    f"The disk is full: {self.path} was left unchanged; free some space and repeat the command."
                ) from error
        finally:
            os.close(handle)
        sync_folder(self.path.parent)
        written = _parse(lines[:-1].rpartition(b"\n")[2])
        assert written is not None
        return written

    def _torn(self) -> list[bytes]:
        """Return what follows the last newline: nothing, or part of a line."""
        rest = self.path.read_bytes().rpartition(b"\n")[2]
        return [rest] if rest else []


def open_ledger(data: Path, ledger: str | None) -> SharingLedger:
    """Return the ledger of a command, after what a killed one was about to send is completed or removed.

    Args:
        data: Folder of the party's data.
        ledger: Path of the ledger; None is ledger.jsonl in the folder of the data.

    Raises:
        UserError: If the ledger cannot be written.
    """
    book = SharingLedger(data / LEDGER if ledger is None else output_file(ledger, "ledger", continued=True))
    book.finish_staged()
    return book


def named_fingerprints(samples: Samples, names: Sequence[str]) -> dict[str, str]:
    """Return the SHA-256 of each sample's content and label, by the given names."""
    return dict(zip(names, fingerprints(samples), strict=True))


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _check_version(line: bytes, where: str) -> None:
    try:
        content = parse_json(line, where)
    except UserError:
        return  # which is damage
    if "version" in content:
        check_format(FORMAT, {"format": FORMAT, "version": content["version"]}, where, "restore the ledger from a copy")


def _parse(line: bytes) -> Entry | None:
    try:
        content = parse_json(line, "The line", _Line)
        entry = Entry(**content)
        # compare bytes: nothing may hide in blanks or repeated keys
        is_canonical = _dump(content).encode() == line.rstrip(b"\n") and entry.event in get_args(Event)
        return entry if is_canonical else None
    except (ValueError, TypeError):
        return None
