"""Records on disk: what is written is read, and damage is named."""

import json
import pickle
import shutil
import tarfile

import numpy as np
import pytest
import webdataset
from austen_pairs import pairs

from lit_core.errors import RunFailure, UserError
from lit_detect.data.text_shards import TextSet, TextWriter, write_texts
from lit_detect.records import Record


@pytest.fixture(scope="module")
def records():
    strange = ["\ufeffa\u200bb\r\nc\rd\u2028e\x00f", " ", "🤖👩‍🚀" * 5, "x" * 1_000_000]
    others = [Record(f"ä/{n}.x", text, n % 2, "test", meta={"a": [1, None]}) for n, text in enumerate(strange)]
    return [*pairs(20), *others]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, records):
    folder = tmp_path_factory.mktemp("texts") / "test"
    write_texts(folder, records, source="s", split="test", licence="CC0", origin="here", shard_size=7)
    return folder


def test_what_is_written_is_read(folder, records):
    found = TextSet(folder)
    assert len(found) == len(records) == 44
    assert [found.record(number) for number in range(len(found))] == records
    for number in (0, 3, 43):
        record = records[number]
        assert found[number] == {"text": record.text, "y": record.label, "index": number}
        assert found.about(number) == Record(**{**record.to_dict(), "text": ""})
    assert found.labels().tolist() == [record.label for record in records] and found.labels().dtype == np.int64
    assert len(set(found.digests().tolist())) == len({record.text for record in records}) == 44
    assert found.meta["human"] == found.meta["machine"] == 22
    assert found.meta["median_characters"] == np.median([len(record.text) for record in records])
    index = found.shards.index
    assert (index["source"], index["split"], index["licence"], index["origin"]) == ("s", "test", "CC0", "here")
    assert index["text_bytes"] == sum(len(record.text.encode()) for record in records)


def test_a_batch_is_its_rows(folder):
    found = pickle.loads(pickle.dumps(TextSet(folder)))
    batch = found.batch([5, 2, 5])
    assert batch["text"] == [found[n]["text"] for n in (5, 2, 5)]
    assert batch["y"].tolist() == [found[n]["y"] for n in (5, 2, 5)] and batch["index"].tolist() == [5, 2, 5]


def test_a_transform_changes_samples_and_no_records(folder, records):
    found = TextSet(folder, str.upper)
    assert found[0]["text"] == records[0].text.upper() and found.record(0) == records[0]


def test_others_read_the_files(folder, records):
    with tarfile.open(folder / "000000.tar") as archive:
        assert set(archive.getnames()[:2]) == {"000000000.txt", "000000000.json"}
    rows = list(webdataset.WebDataset(str(folder / "000000.tar"), shardshuffle=False).decode())
    assert [row["txt"] for row in rows] == [record.text for record in records[:7]]
    assert rows[1]["json"]["id"] == records[1].id


def test_a_shard_ends_after_so_many_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr("lit_detect.data.text_shards.SHARD_BYTES", 1000)
    writer = TextWriter(tmp_path / "a", 100)
    for number in range(6):
        writer.add(Record(str(number), "x" * 400, 0))
        assert len(writer._waiting) < 3
    writer.finish(source="a", split="train")
    assert len(writer) == 6 and [shard["samples"] for shard in TextSet(tmp_path / "a").shards.index["shards"]] == [3, 3]


def changed(folder, target, change):
    shutil.copytree(folder, target)
    index = json.loads((target / "index.json").read_text())
    change(index)
    (target / "index.json").write_text(json.dumps(index))
    return target


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda index: index.update(kind="tokens"), "kind 'tokens'"),
        (lambda index: index["meta"].update(labels="01"), '"labels"'),
        (lambda index: index["meta"].update(labels="2" * 44), '"labels"'),
        (lambda index: index["meta"].pop("labels"), '"labels"'),
        (lambda index: index["shards"][0].update(size=1), "000000.tar"),
    ],
)
def test_another_index_is_refused(folder, tmp_path, change, words):
    with pytest.raises(UserError, match=words):
        TextSet(changed(folder, tmp_path / "x", change))


def test_damage_is_named(folder, tmp_path):
    def swap(index):
        labels = index["meta"]["labels"]
        index["meta"]["labels"] = labels[1:] + labels[0]

    found = TextSet(changed(folder, tmp_path / "x", swap))
    with pytest.raises(RunFailure, match="damaged at text 0"):
        found.about(0)
    shard = tmp_path / "x" / "000001.tar"
    content = bytearray(shard.read_bytes())
    content[600] ^= 1
    shard.write_bytes(content)
    with pytest.raises(UserError, match=r"000001\.tar"):
        TextSet(tmp_path / "x")
