"""Everything that we write carries the version of its format; a newer one is refused, older ones are read."""

import ast
import json
import re
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lit_core import record
from lit_core.data.shards import ShardSet, write_index, write_shard
from lit_core.errors import UserError
from lit_core.fetch.packages import fetched_record
from lit_core.files.arrays import npz_bytes
from lit_core.files.formats import FORMATS, check_format, stamp
from lit_core.files.remade import read_or_set_aside
from lit_core.files.working_folder import RECORD, is_prepared
from lit_core.lightning.checkpoint import load_checkpoint_file
from lit_core.study.cells import CONFIG, RESULT, finished
from lit_core.study.identity import identity
from lit_core.work import UnfinishedWork
from lit_detect.calibration import ALL, Calibration
from lit_detect.human_scores import Group, Length
from lit_moe.fingerprint import Fingerprint
from lit_moe.probe import Probe
from lit_valuation.exchange.ledger import Entry, SharingLedger
from lit_valuation.exchange.manifest import Contents, Query, from_bytes, to_bytes
from lit_valuation.exchange.trainings import TrainingResult, dump_training, load_training

ROOT = Path(__file__).parents[1]
PACKAGES = ("lit_core", "lit_moe", "lit_valuation", "lit_detect")
#: Modules that write files without a version of ours, and why.
WITHOUT = {
    "lit_core/board/board.py": "HTML; a record lies beside it",
    "lit_core/cli/main.py": "os.devnull",
    "lit_core/corpora/gather.py": "text, and an index in a folder whose name tells the version",
    "lit_core/corpora/write.py": "entries in a folder whose name tells the version",
    "lit_core/files/bad_rows.py": "CSV",
    "lit_core/files/paths.py": "what its callers give",
    "lit_core/lightning/loggers.py": "CSV",
    "lit_core/lm/pretrained.py": "a folder of transformers",
    "lit_core/lm/tokenizer.py": "tokenizer.json of Hugging Face",
    "lit_core/study/figures.py": "pictures",
    "lit_core/study/report.py": "CSV and Markdown",
    "lit_core/study/study.py": "Markdown",
    "lit_detect/callbacks/prediction_table.py": "CSV or JSONL",
    "lit_detect/commands/attack.py": "JSONL of texts; a record lies beside it",
    "lit_detect/commands/report.py": "Markdown; a record lies beside it",
    "lit_core/lightning/checksums.py": "checksums inside a checkpoint",
    "lit_core/trust.py": "the key of a user, and lines with names of classes",
    "lit_detect/generation/generate.py": "JSONL of texts; a record lies beside it",
    "lit_detect/report/pages.py": "CSV and pictures",
    "lit_detect/study/attacked.py": "a folder whose name tells the version of the code",
    "lit_moe/commands/doctor.py": "Markdown or JSON; a record lies beside it",
    "lit_moe/doctor/checks/float32.py": "a folder of transformers, which is removed",
    "lit_moe/callbacks/routing_fingerprint.py": "what fingerprint.py of the package stamps",
    "lit_moe/commands/drift.py": "a picture; a record lies beside it",
    "lit_moe/commands/fingerprint.py": "what fingerprint.py of the package stamps",
    "lit_moe/commands/generate.py": "JSONL of texts; a record lies beside it",
    "lit_moe/interop/exporting.py": "a folder of transformers, with a record",
    "lit_moe/interop/upcycle.py": "a checkpoint, as importing.py begins it",
    "lit_moe/interop/grow.py": "a checkpoint, as importing.py begins it",
    "lit_valuation/callbacks/prediction_table.py": "CSV",
    "lit_valuation/commands/prepare.py": "CSV, whose hash is in the record that filled_root.py writes beside it",
    "lit_valuation/exchange/folder.py": "a manifest, with its version",
    "lit_detect/commands/explain.py": "HTML",
    "lit_valuation/exchange/staging.py": "a note for the next command of the ledger, which removes it",
    "lit_valuation/exchange/report.py": "CSV, HTML and pictures; a record lies beside them",
    "lit_valuation/exchange/sheet.py": "CSV and pictures",
}
WRITING = {
    *("atomic_write", "atomic_path", "write_text", "write_bytes", "save_pretrained", "save_file"),
    "streamed_checkpoint",
}


def called(node):
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def opens_to_write(node):
    """Tell whether a call opens a file to write, or is one of os.open."""
    if called(node) != "open":
        return False
    if isinstance(node.func, ast.Attribute) and getattr(node.func.value, "id", "") == "os":
        return "O_RDONLY" not in ast.unparse(node)
    values = [*node.args, *(keyword.value for keyword in node.keywords)]
    return any(isinstance(v, ast.Constant) and re.fullmatch(r"[rwab+t]*[wa+][b+t]*", str(v.value)) for v in values)


def writers():
    """Return the modules that write files, and whether they stamp them."""
    found = {}
    for path in (path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        if any(called(node) in WRITING or opens_to_write(node) for node in calls):
            stamps = any(called(node) in ("stamp", "check_format") for node in calls)
            found[path.relative_to(ROOT).as_posix()] = stamps
    return found


def test_each_module_that_writes_stamps_or_has_a_reason():
    found = writers()
    assert len(found) > 35
    assert {path for path, stamps in found.items() if not stamps} == set(WITHOUT)


def changed(content, changes):
    """Return a mapping with some keys replaced, and those of None removed."""
    return {key: value for key, value in {**content, **changes}.items() if changes.get(key, 0) is not None}


def as_json(path, **changes):
    content = json.loads(path.read_text())
    path.write_text(json.dumps(changed(content, changes)))


def as_line(path, **changes):
    first, newline, rest = path.read_text().partition("\n")
    path.write_text(json.dumps(changed(json.loads(first), changes)) + newline + rest)


def as_checkpoint(path, **changes):
    torch.save(changed(torch.load(path, weights_only=True), changes), path)


def calibration(folder):
    path = folder / "calibration.json"
    Calibration(0.01, "d", "0" * 64, {ALL: Group((Length(50, (0.5, 1.0)),), Length(99, (0.5,)))}).save(path)
    return path, as_json, lambda: Calibration.load(path)


def cell(name):
    def make(folder):
        config = {"function": "lit_moe.study.shift", "values": {"seed": 0}}
        one = SimpleNamespace(name="c", identity=identity(config))
        (folder / "c").mkdir()
        (folder / "c" / CONFIG).write_text(json.dumps({**stamp("litshift-cell"), **config}))
        (folder / "c" / RESULT).write_text(
            json.dumps({**stamp("litshift-cell"), "data": "", "code": "", "seconds": 1.0, "rows": [{"x": 1.0}]})
        )
        return folder / "c" / name, as_json, lambda: (finished(one, folder) or {}).get("rows")

    return make


def checkpoint(folder):
    path = folder / "x.ckpt"
    torch.save({**stamp("litshift-checkpoint"), "state_dict": {}, "global_step": 3}, path)
    return path, as_checkpoint, lambda: load_checkpoint_file(path)


def exchange(folder):
    path = folder / "manifest.json"
    query = Query(Contents("table", (2,), {"a": 1}, "0", ()), None, 3, None)
    path.write_bytes(to_bytes(query))
    return path, as_json, lambda: from_bytes(Query, path.read_bytes(), str(path))


def fetched(folder):
    path = folder / "fetched.json"
    path.write_text(json.dumps({**stamp("litshift-fetched"), "name": "x", "file": "x.deb", "sha256": "0"}))
    return path, as_json, lambda: fetched_record(folder)


def as_npz(path, **changes):
    with np.load(path) as plain:
        arrays = dict(plain)
    arrays["about"] = np.array(json.dumps(changed(json.loads(str(arrays["about"])), changes)))
    path.write_bytes(npz_bytes(arrays))


def fingerprint(folder):
    path = folder / "f.npz"
    probe = Probe(torch.tensor([[1, 2]]), torch.tensor([0]), ("a",), "0" * 64, 1)
    path.write_bytes(Fingerprint(probe, (torch.tensor([[[0]]]),), (2,)).content())
    return path, as_npz, lambda: Fingerprint.load(path, "reference")


def ledger(folder):
    book = SharingLedger(folder / "ledger.jsonl")
    book.append(Entry("query", "alice", "0" * 64, 3))
    return book.path, as_line, book.entries


def prepared(folder):
    path = folder / RECORD
    path.write_text(json.dumps({**stamp("litshift-prepared"), "settings": {"seed": 0}}))
    return path, as_json, lambda: is_prepared(folder, {"seed": 0}, dict)


def run_record(folder):
    path = folder / record.RECORD
    record.write(path, record.new_record(inputs=[]))
    return path, as_json, lambda: record.read(path)


def shards(folder):
    entry = write_shard(folder / "000000.tar", [{"__key__": "a", "npy": np.zeros(2, dtype=np.uint16)}])
    write_index(folder, [entry], kind="tokens", source="s", split="train")
    return folder / "index.json", as_json, lambda: ShardSet(folder)


def training(folder):
    path = folder / "x.json"
    path.write_text(dump_training(TrainingResult({"test": torch.tensor([1.0])}, 1.0)))
    return path, as_json, lambda: read_or_set_aside(path, partial(load_training, path, {"test": 1}))


def work(file):
    def make(folder):
        def opened():
            return UnfinishedWork(folder / "w", "key", {"seed": 0}, lambda *_: "It differs.", "busy")

        with opened() as begun:
            begun.append([{"key": 1}])

        def read():
            with opened() as begun:
                return list(begun.gather())

        return folder / "w" / file, as_line if file == "0.jsonl" else as_json, read

    return make


#: Formats of what a command makes again from the same inputs.
MADE_AGAIN = ("litshift-cell", "litshift-training", "litshift-work")
#: Writes a file of each format; returns its path, what changes it, and what reads it.
FILES = {
    "litshift-calibration": [calibration],
    "litshift-cell": [cell(CONFIG), cell(RESULT)],
    "litshift-checkpoint": [checkpoint],
    "litshift-exchange": [exchange],
    "litshift-fetched": [fetched],
    "litshift-fingerprint": [fingerprint],
    "litshift-ledger": [ledger],
    "litshift-prepared": [prepared],
    "litshift-record": [run_record],
    "litshift-shards": [shards],
    "litshift-training": [training],
    "litshift-work": [work("settings.json"), work("0.jsonl")],
}
CASES = [pytest.param(name, make, id=f"{name}-{index}") for name in FILES for index, make in enumerate(FILES[name])]


def test_every_format_is_tried():
    assert FILES.keys() == FORMATS.keys()


@pytest.mark.parametrize(("name", "make"), CASES)
def test_what_is_written_is_read_and_a_newer_one_is_refused(name, make, tmp_path):
    path, change, read = make(tmp_path)
    assert read()
    change(path, version=FORMATS[name][0] + 1)
    with pytest.raises(UserError) as refusal:
        read()
    text, present = str(refusal.value), FORMATS[name][0]
    assert str(path) in text and f"of version {present + 1} of {name}, but this release reads" in text
    assert f"up to {present}; install a newer LitShift." in text


@pytest.mark.parametrize(("name", "make"), [case for case in CASES if FORMATS[case.values[0]][1] == 0])
def test_what_was_written_before_there_were_versions_is_read(name, make, tmp_path):
    path, change, read = make(tmp_path)
    if name == "litshift-ledger":  # whose lines are hashed
        content = json.loads(path.read_text())
        del content["version"]
        content["hash"] = Entry(**content).hashed()
        path.write_text(json.dumps(content, sort_keys=True, separators=(",", ":")) + "\n")
    elif path.name == "0.jsonl":
        path.write_text(path.read_text().partition("\n")[2])
    else:
        change(path, format=None, version=None)
    assert read()


@pytest.mark.parametrize("damage", ["", "{", "[]", "null", '"x"', "\0"])
@pytest.mark.parametrize(("name", "make"), [case for case in CASES if case.values[0] != "litshift-ledger"])
def test_a_damaged_file_is_named(name, make, damage, tmp_path, capsys):
    path, change, read = make(tmp_path)
    path.write_text(damage)
    if change is as_line:  # the journal of a killed run, of which whole lines count
        assert not read()
        return
    if name in MADE_AGAIN:
        assert not read()
        said = capsys.readouterr().err
        aside = re.search(r"it is set aside as (\S+) and made anew\.$", said, re.MULTILINE)[1]
        kept = Path(aside) / path.name if Path(aside).is_dir() else Path(aside)
        assert kept.read_text() == damage and str(path) in said
        return
    with pytest.raises(UserError, match=re.escape(str(path))):
        read()


@pytest.mark.parametrize(("name", "make"), [case for case in CASES if FORMATS[case.values[0]][1] == 0])
def test_a_version_without_a_format_is_not_taken_for_an_old_file(name, make, tmp_path, capsys):
    path, change, read = make(tmp_path)
    if name in ("litshift-ledger", "litshift-work"):  # whose lines have no format; whose rows may have any key
        return
    change(path, format=None, version=99)
    if name in MADE_AGAIN:
        assert not read() and '"format" is None' in capsys.readouterr().err
        return
    with pytest.raises(UserError, match='"format" is None'):
        read()


def test_an_older_version_that_is_not_read_is_refused_by_name():
    with pytest.raises(UserError) as refusal:
        check_format("litshift-shards", {"format": "litshift-shards", "version": 0}, "x/index.json", "prepare it again")
    assert str(refusal.value) == (
        "x/index.json is of version 0 of litshift-shards, but this release reads versions from 1 on; prepare it again."
    )
