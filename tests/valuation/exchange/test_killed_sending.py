"""A party is killed as it writes what it sends: nothing is sent unrecorded, and nothing counts that was never there."""

import re
import shutil
import signal
from pathlib import Path

import kills
import torch

from lit_valuation.exchange.folder import anonymized, incoming, outgoing
from lit_valuation.exchange.ledger import Entry, named_fingerprints, open_ledger
from lit_valuation.exchange.manifest import Query, digest
from lit_valuation.samples import Samples

NAMES = ("alice", "bob")


def send():
    """Write a folder for two parties and record it, as the verbs do."""
    x = torch.arange(12.0).reshape(6, 2)
    samples = Samples(x, torch.tensor([0, 1] * 3), keys=tuple("abcdef"), classes=("cat", "dog"))
    book = open_ledger(Path("home"), None)
    if Path("sent").exists():
        return 2
    stage = anonymized(samples), "table", "", lambda contents: Query(contents, ("x", "y"), 3, None), book.staged
    with book.locked(), outgoing(Path("sent"), *stage) as manifest:
        sent = named_fingerprints(samples, samples.keys)
        book.append(*(Entry("query", name, digest(manifest), 3, sent) for name in NAMES))
    return 0


def left(folder):
    """Return whether the folder is there, whom the ledger knows, and whatever else there is."""
    names = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    book = open_ledger(folder / "home", None)
    others = {name for name in names if not name.startswith("sent") and name not in ("home", "home/ledger.jsonl")}
    return (folder / "sent/manifest.json").is_file(), [entry.counterparty for entry in book.entries()], others


def killed(folder):
    """Yield a folder for each file operation of the exchange itself, in which a party was killed there."""
    for operation in kills.run(send, folder, below=folder, trace=True).operations:
        if re.match(r"\S+ lit_valuation/exchange/", operation.place):
            here = folder / "here"
            here.mkdir()
            assert kills.run(send, here, below=here, end=kills.End(operation)).code == -signal.SIGKILL
            yield operation, here
            shutil.rmtree(here)


def test_folder_and_ledger_agree_after_the_next_command(tmp_path):
    seen = set()
    for at, here in killed(tmp_path):
        open_ledger(here / "home", None)  # as any command of the party does
        is_there, known, _ = left(here)
        assert known == (list(NAMES) if is_there else []), at
        assert not list(here.glob(".sent*staged")) and not list(here.rglob(".ledger.jsonl.staged.json")), at
        assert kills.run(send, here).code == (2 if is_there else 0), at
        there, known, others = left(here)
        assert there and known == list(NAMES), at
        assert not {name for name in others if "sent" in name or not is_there}, at
        incoming(here / "sent", Query)
        seen.add(is_there)
    assert seen == {True, False}


def test_a_folder_that_was_moved_stays_counted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert send() == 0
    Path("sent").rename("given")
    assert open_ledger(Path("home"), None).disclosed("alice")
