import dataclasses
import json
import multiprocessing
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import LightningModule

from lit_core.errors import UserError
from lit_valuation.exchange.acceptance import load_trainer_data
from lit_valuation.exchange.ledger import Entry, SharingLedger, fingerprints
from lit_valuation.samples import Samples


@pytest.fixture
def ledger(tmp_path):
    book = SharingLedger(tmp_path / "ledger.jsonl")
    with book.locked():
        book.append(Entry("answer", "a", "d1", 4, {"x": "1", "y": "2"}))
        book.append(Entry("answer", "a", "d2", 4, {"y": "2", "z": "3"}))
        book.append(Entry("answer", "b", "d3", 4, {"x": "1"}))
        book.append(Entry("received", "a", "d4", 4, {"w": "9"}))
    return book


def test_disclosure_is_counted_once_per_sample_and_party(ledger):
    assert ledger.disclosed("a") == {"1", "2", "3"} and ledger.disclosed("b") == {"1"} and not ledger.disclosed("c")


def test_a_withdrawal_gives_nothing_back(ledger):
    ledger.withdraw("d1", "asked to")
    assert ledger.withdrawn() == {"d1"} and ledger.disclosed("a") == {"1", "2", "3"}
    assert ledger.entries()[-1].notes == {"reason": "asked to"}
    with pytest.raises(UserError, match="digest is d9"):
        ledger.withdraw("d9")


def lines(ledger):
    return ledger.path.read_bytes().splitlines(keepends=True)


def edit(line):
    content = json.loads(line)
    return json.dumps(content | {"budget": 1}, sort_keys=True, separators=(",", ":")).encode() + b"\n"


def forge(line):
    """Change a line and give it its right hash: the next one tells."""
    content = json.loads(line) | {"budget": 1}
    content["hash"] = Entry(**content).hashed()
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode() + b"\n"


@pytest.mark.parametrize(
    ("change", "number", "what"),
    [
        (lambda rows: [rows[0], edit(rows[1]), *rows[2:]], 2, "damaged"),
        (lambda rows: [rows[0], forge(rows[1]), *rows[2:]], 3, "does not follow"),
        (lambda rows: [rows[0], *rows[2:]], 2, "does not follow"),
        (lambda rows: [rows[1], rows[0], *rows[2:]], 1, "does not follow"),
        (lambda rows: [*rows[:3], rows[3][:-20]], 4, "damaged"),
        (lambda rows: [rows[0], b"\n", *rows[1:]], 2, "damaged"),
        (lambda rows: [*rows[:3], edit(rows[3])], 4, "damaged"),
        (lambda rows: [rows[0].replace(b"{", b"{ ", 1), *rows[1:]], 1, "damaged"),
        (lambda rows: [rows[0], b"\xff\n", *rows[2:]], 2, "damaged"),
        (lambda rows: [rows[0], b"[1]\n", *rows[2:]], 2, "damaged"),
    ],
)
def test_a_damaged_line_is_named_and_nothing_is_appended(ledger, change, number, what):
    ledger.path.write_bytes(b"".join(change(lines(ledger))))
    before = ledger.path.read_bytes()
    with pytest.raises(UserError, match=f"line {number}, .*{what}"), ledger.locked():
        ledger.append(Entry("answer", "a", "d5", 4))
    assert ledger.path.read_bytes() == before


def append_many(path, name):
    book = SharingLedger(path)
    for number in range(20):
        while True:
            try:
                with book.locked():
                    book.append(Entry("answer", name, f"{name}{number}", 1))
                break
            except UserError:  # the other one is at work
                continue


def test_two_processes_append_whole_lines(tmp_path):
    path = tmp_path / "ledger.jsonl"
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=append_many, args=(path, name)) for name in "ab"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(SharingLedger(path).entries()) == 40


def test_a_fingerprint_is_of_content_and_label():
    x = torch.arange(12).reshape(3, 4)
    samples = Samples(x, torch.tensor([0, 1, 0]), ("a", "b"), ("k", "l", "m"))
    renamed = dataclasses.replace(samples, keys=("1", "2", "3"))
    relabelled = dataclasses.replace(samples, y=torch.tensor([1, 1, 0]))
    turned = dataclasses.replace(samples, y=1 - samples.y, classes=("b", "a"))
    assert fingerprints(renamed) == fingerprints(samples) == fingerprints(turned)
    assert [a == b for a, b in zip(fingerprints(relabelled), fingerprints(samples), strict=True)] == [False, True, True]


def test_a_last_line_whose_end_an_editor_took_away_is_whole(ledger):
    ledger.path.write_bytes(ledger.path.read_bytes().rstrip(b"\n"))
    with ledger.locked():
        ledger.append(Entry("answer", "a", "d5", 4))
    assert [entry.digest for entry in ledger.entries()][-2:] == ["d4", "d5"]


def test_a_ledger_that_is_not_there_is_called_that(tmp_path):
    ledger, query = SharingLedger(tmp_path / "ledger.jsonl"), SimpleNamespace(digest="d1")
    with pytest.raises(UserError, match=r"ledger\.jsonl is not there, but should know a query with the digest d1"):
        load_trainer_data(tmp_path, ledger, query, LightningModule())
