"""Embeddings of two parties are compared only if one encoder made them: prepared sets and manifests name it."""

import dataclasses
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lit_core.errors import UserError
from lit_valuation.commands.prepare import prepare
from lit_valuation.data.labelled_sets import LabelledSet
from lit_valuation.encoders import Encoder, EncoderStamp
from lit_valuation.exchange.answering import check_inputs, note_encoder
from lit_valuation.exchange.manifest import Contents, Query, from_bytes, to_bytes
from lit_valuation.sources import ShardFolder, Texts


class Letters(Encoder):
    """Counts two letters of a text."""

    sha256 = None

    def __init__(self, letters):
        self.letters, self.name = letters, f"Letters[/home/me/{letters}]"

    def encode(self, x, batch_size=64):
        return torch.tensor([[text.count(letter) + 1.0 for letter in self.letters] for text in x])


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LITSHIFT_DATA", str(tmp_path / "data"))
    rows = [{"text": "a" * i + "b" * (i * i % 7) + "c" * (i % 3 + 1), "label": "xy"[i % 2]} for i in range(16)]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def prepared(root, letters):
    prepare(f"./{root}", Texts("t.jsonl", Letters(letters)), test_fraction=0)
    return LabelledSet(f"{root}/train")


def query_of(labelled, **changes):
    contents = Contents(labelled.kind, labelled.shape, {"x": 1}, "", (), encoder=labelled.encoder)
    return Query(dataclasses.replace(contents, **changes), None, 4, None)


def test_embeddings_of_another_encoder_are_refused_by_the_owner():
    trainers, same, other = prepared("trainer", "ab"), prepared("same", "ab"), prepared("other", "bc")
    assert trainers.encoder == EncoderStamp("Letters[ab]", None)
    query = query_of(trainers)
    assert from_bytes(Query, to_bytes(query), "x") == query
    check_inputs(same, query)
    assert note_encoder(same, query) == ""
    with pytest.raises(UserError, match=r"embeddings by Letters\[ab\] \(no weights\), but .* by Letters\[bc\]"):
        check_inputs(other, query)
    changed = query_of(trainers, encoder=EncoderStamp("Letters[ab]", "1" * 64))
    with pytest.raises(UserError, match=r"Letters\[ab\] \(111111111111\), but"):
        check_inputs(same, changed)


def test_an_encoder_that_is_not_told_is_noted():
    trainers = prepared("trainer", "ab")
    former = query_of(trainers, encoder=None)
    assert json.loads(to_bytes(former))["version"] == 1  # as former releases wrote it
    check_inputs(trainers, former)
    assert "The query does not tell which encoder" in note_encoder(trainers, former)
    silent = SimpleNamespace(encoder=None, folder="mine")
    assert "mine does not tell which encoder" in note_encoder(silent, query_of(trainers))
    assert note_encoder(silent, query_of(trainers, input="table", encoder=None)) == ""


def test_sets_and_splits_of_two_encoders_are_not_mixed():
    prepared("all/one", "ab")
    assert ShardFolder("all").made_by == EncoderStamp("Letters[ab]", None)
    prepare("./again", ShardFolder("all/one/train"), test_fraction=0)
    assert LabelledSet("again/val").encoder == EncoderStamp("Letters[ab]", None)
    prepared("all/two", "bc")
    with pytest.raises(UserError, match=r"all/two/\w+ holds embeddings by Letters\[bc\] .* by Letters\[ab\]"):
        ShardFolder("all")
    with pytest.raises(UserError, match=r"val holds embeddings by Letters\[bc\] .*, but the source Letters\[ab\]"):
        prepare("./mixed", Texts("t.jsonl", Letters("ab")), val=Texts("t.jsonl", Letters("bc")))


def test_an_index_with_a_malformed_encoder_is_refused():
    prepared("own", "ab")
    shutil.copytree("own/val", "apart")  # without the record of its root
    index = json.loads((path := Path("apart/index.json")).read_text())
    for wrong in ("Letters", {"name": "x"}, {"name": 1, "sha256": None}, {"name": "x", "sha256": 2}):
        path.write_text(json.dumps({**index, "meta": index["meta"] | {"encoder": wrong}}))
        with pytest.raises(UserError, match='"encoder" in "meta" must be the name and sha256'):
            LabelledSet("apart")
