"""The verb: sources on disk, whole or not at all, the same for the same arguments, and never mixed."""

import hashlib
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from austen_pairs import pairs, passages

import lit_detect.data.text_shards
from lit_core.errors import RunFailure, UserError
from lit_core.files.paths import replace_whole
from lit_core.files.working_folder import WORK
from lit_detect.data.prepare import prepare
from lit_detect.data.text_shards import TextSet
from lit_detect.formats import LitShiftJSONL, TextSource
from lit_detect.records import Record


def listing(root):
    """Every path below a folder with the hash of its content."""
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in sorted(Path(root).rglob("*"))
    }


def write(path, records):
    path.write_text("".join(json.dumps(record.to_dict()) + "\n" for record in records))
    return str(path)


class Given(TextSource):
    """Records of a test."""

    name, licence, origin = "given", "CC0", "a test"

    def __init__(self, *records):
        self.given = records

    def records(self):
        yield from self.given

    def facts(self):
        return {"records": len(self.given)}


@pytest.fixture
def source(tmp_path):
    return LitShiftJSONL(write(tmp_path / "twins.jsonl", pairs(40)), "twins", licence="CC0")


def test_splits_hold_whole_pairs_and_all_records(source, tmp_path, capsys):
    summary = prepare(str(tmp_path / "root"), [source], shard_size=10)
    assert {split: (row["human"], row["machine"]) for split, row in summary["twins"].items()} == {
        "train": (32, 32), "val": (4, 4), "test": (4, 4)
    }  # fmt: skip
    seen, sides = {}, {}
    for split in ("train", "val", "test"):
        found = TextSet(tmp_path / "root" / "twins" / split)
        assert found.shards.index["licence"] == "CC0"
        for number in range(len(found)):
            record = found.record(number)
            seen[record.id] = replace(record, split="")
            assert record.split == split and sides.setdefault(record.pair_id, split) == split
    assert seen == {record.id: record for record in pairs(40)}
    said = capsys.readouterr().out
    assert "lit-detect fit" in said and "--data.train '[\"twins\"]'" in said
    (line,) = [line for line in said.splitlines() if line.split()[:2] == ["twins", "val"]]
    assert line.split()[2:4] == ["4", "4"]


def test_equal_arguments_give_equal_files_and_a_second_time_changes_nothing(source, tmp_path, capsys):
    summary = prepare(str(tmp_path / "a"), [source])
    assert prepare(str(tmp_path / "b"), [source]) == summary and listing(tmp_path / "a") == listing(tmp_path / "b")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*")}
    capsys.readouterr()
    assert prepare(str(tmp_path / "a"), [source]) == summary
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "a").rglob("*")}
    assert "unchanged" in capsys.readouterr().out
    prepare(str(tmp_path / "c"), [source], seed=1)
    assert listing(tmp_path / "c") != listing(tmp_path / "a")


def test_sources_are_added_later(source, tmp_path):
    prepare(str(tmp_path / "root"), [source])
    before = listing(tmp_path / "root")
    wild = LitShiftJSONL(write(tmp_path / "wild.jsonl", pairs(5, "other")), "wild", split="test")
    assert list(prepare(str(tmp_path / "root"), [wild])["wild"]) == ["test"]
    after = listing(tmp_path / "root")
    assert before.items() <= after.items() and "wild/test/index.json" in after
    assert list(prepare(str(tmp_path / "root"), verify=True)) == ["twins", "wild"]


def test_repetitions_are_left_out_and_counted(tmp_path, capsys):
    given = list(pairs(20))
    again = [replace(record, id=f"again-{record.id}", pair_id="") for record in given[:6]]
    attacked = replace(given[1], id="attacked", attack="number")  # an attack that found nothing to change
    prepare(str(tmp_path / "root"), [Given(*given, *again, attacked)])
    assert "given: 47 texts read, 41 kept, 6 set aside, since they repeat others." in capsys.readouterr().out
    record = json.loads((tmp_path / "root" / "given" / "prepare.json").read_text())
    assert record["texts"] == {"found": 47, "left_out": 6}


def test_verify_compares_hashes(source, tmp_path):
    root = tmp_path / "root"
    summary = prepare(str(root), [source])
    assert prepare(str(root), verify=True) == summary
    shard = root / "twins" / "val" / "000000.tar"
    content = bytearray(shard.read_bytes())
    content[700] ^= 1
    shard.write_bytes(content)
    with pytest.raises(UserError, match=str(shard)):
        prepare(str(root), verify=True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"seed": 1}, "prepared with seed 0, and now it is 1"),
        ({"val_fraction": 0.2}, r"val_fraction 0\.1, and now it is 0\.2"),
        ({"keep_splits": False}, "keep_splits True"),
    ],
)
def test_a_root_is_not_mixed(source, tmp_path, arguments, words):
    root = tmp_path / "root"
    prepare(str(root), [source])
    before = listing(root)
    with pytest.raises(UserError, match=words):
        prepare(str(root), [source], **arguments)
    Path(source.files[0]).write_text("")
    with pytest.raises(UserError, match=r"source\.facts\.bytes"):
        prepare(str(root), [source])
    assert listing(root) == before


HUMAN = Record("h", "one text", 0)
MACHINE = Record("m", "another text", 1)


@pytest.mark.parametrize(
    ("sources", "arguments", "words"),
    [
        (None, {}, "sources is empty"),
        ([], {}, "sources is empty"),
        ([Given(HUMAN, MACHINE)], {"seed": -1}, "seed is -1"),
        ([Given(HUMAN, MACHINE)], {"shard_size": 0}, "shard_size is 0"),
        ([Given(HUMAN, MACHINE)], {"val_fraction": 1.5}, r"val_fraction is 1\.5"),
        ([Given(HUMAN, MACHINE)], {"val_fraction": 0.6, "test_fraction": 0.6}, r"val_fraction \+ test_fraction"),
        ([Given(HUMAN), Given(HUMAN)], {}, "2 sources are named given"),
        ([Given()], {}, "given has no texts"),
        ([Given(HUMAN)], {}, "train of the source given has 1 texts, but no machine texts"),
        ([Given(MACHINE)], {}, "no human texts"),
        ([Given(HUMAN, replace(MACHINE, split="test"))], {}, "no machine texts"),
        ([Given(HUMAN, Record("e", " ", 1))], {}, "'e' of the source given is empty"),
        ([Given(HUMAN, Record("e", "x"))], {}, "'e' of the source given has no label"),
        ([Given(HUMAN, replace(HUMAN, text="x"))], {}, "'h' occurs twice"),
        (None, {"verify": True}, "not written by prepare"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing(tmp_path, sources, arguments, words):
    with pytest.raises(UserError, match=words) as error:
        prepare(str(tmp_path / "deep" / "root"), sources, **arguments)
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())


def test_a_domain_that_lacks_a_class_is_told(tmp_path, capsys):
    given = [replace(record, split="test") for record in pairs(6)]
    given += [replace(given[0], id="x", text="a poem", domain="poetry", pair_id="")]
    given += [Record("y", "human", 0, "val"), Record("z", "machine", 1, "val")]
    prepare(str(tmp_path / "root"), [Given(*given)])
    assert (
        "val of given lacks human or machine texts of 3 domains: emma, lady susan, poetry." in capsys.readouterr().out
    )


def test_a_source_that_changes_meanwhile_is_a_failure(tmp_path):
    class Growing(Given):
        def records(self):
            yield from self.given
            self.given = (*self.given, Record(str(len(self.given)), "more", 0))

    with pytest.raises(RunFailure, match="changed while it was read"):
        prepare(str(tmp_path / "root"), [Growing(*pairs(10))])
    assert not list(tmp_path.iterdir())


def test_a_foreign_folder_is_refused_untouched(source, tmp_path):
    folder = tmp_path / "root" / "twins"
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="was not made by prepare"):
        prepare(str(tmp_path / "root"), [source])
    assert listing(tmp_path / "root").keys() == {"twins", "twins/thesis.tex"}


def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def kill_at_the_twentieth_shard():
    calls, write = [0], lit_detect.data.text_shards.write_shard

    def counted(*arguments):
        calls[0] += 1
        return kill() if calls[0] == 20 else write(*arguments)

    lit_detect.data.text_shards.write_shard = counted


def kill_after_the_first_move():
    def move(*paths):
        replace_whole(*paths)
        kill()

    sys.modules["lit_detect.data.prepare"].replace_whole = move


@pytest.mark.parametrize("before", [kill_at_the_twentieth_shard, kill_after_the_first_move])
def test_a_killed_run_leaves_whole_sources_and_is_repaired(tmp_path, before):
    path = write(tmp_path / "twins.jsonl", pairs(40))
    root = tmp_path / "killed"
    sources = [LitShiftJSONL(path, "a"), LitShiftJSONL(path, "b")]
    process = os.fork()
    if not process:  # the child, which must not go on with the tests whatever happens
        try:
            before()
            prepare(str(root), sources, shard_size=5)
        finally:
            os._exit(0)
    assert os.waitpid(process, 0)[1] == signal.SIGKILL
    assert {folder.name for folder in root.iterdir()} == {"a", WORK}
    assert list(prepare(str(root), verify=True)) == ["a"]
    for folder in (root, tmp_path / "never"):
        prepare(str(folder), sources, shard_size=5)
    assert listing(root) == listing(tmp_path / "never")


def test_a_full_disk_leaves_the_root_as_it_was(source, tmp_path, monkeypatch):
    root = tmp_path / "root"
    prepare(str(root), [source])
    before = listing(root)

    def full(*_):
        raise RunFailure("The disk is full.")

    monkeypatch.setattr("lit_detect.data.text_shards.write_shard", full)
    with pytest.raises(RunFailure):
        prepare(str(root), [LitShiftJSONL(str(source.files[0]), "other")])
    assert listing(root) == before


def test_a_text_of_a_megabyte_and_one_of_emoji_only(tmp_path):
    given = [replace(r, text=r.text * 2000 if r.id == "h0" else "🤖" if r.id == "m1" else r.text) for r in pairs(20)]
    prepare(str(tmp_path / "root"), [Given(*given)], val_fraction=0, test_fraction=0)
    found = TextSet(tmp_path / "root" / "given" / "train")
    assert [found.record(n).text for n in range(4)] == [record.text for record in given[:4]]
    assert len(passages(1)[0]) * 2000 > 1_000_000
