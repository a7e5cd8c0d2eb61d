from collections import Counter

import pytest

from lit_core.corpora import Austen
from lit_core.errors import RunFailure
from lit_detect.formats import EmbeddedPairs, EmbeddedWild, embedded
from lit_detect.functional.shape import LEAK, character_auroc
from lit_detect.generation.passages import clean, split_of

GENERATORS = ("fewer_layers", "continued", "scratch", "ngram")


@pytest.fixture(scope="module")
def pairs():
    return list(EmbeddedPairs().records())


def check(records):
    """What holds for both files: pairs, splits by document, and texts that are clean and equally long."""
    twins = Counter(record.meta["passage"] for record in records)
    assert set(twins.values()) == {2} and len({record.id for record in records}) == len(records)
    assert Counter(record.label for record in records) == {0: len(twins), 1: len(twins)}
    for record in records:
        domain, _, document = record.pair_id.partition("/")
        assert record.domain == domain and record.split == split_of(domain, document)
        assert clean(record.text) == record.text and len(record.text.split(" ")) == 80
        assert (record.source == "human") == (record.label == 0)


def test_pairs(pairs):
    check(pairs)
    assert len(pairs) >= 500 and {record.domain for record in pairs} == {"austen", "handbook_en"}
    assert {record.split for record in pairs} == {"train", "val", "test"}
    assert {record.decoding["temperature"] for record in pairs if record.label == 1} == {1.0}


def test_human_texts_are_the_novels(pairs):
    novels = {f"austen/{document.id}": clean(document.text) for document in Austen().documents()}
    human = [record for record in pairs if record.label == 0 and record.domain == "austen"]
    assert all(f"{r.meta['prefix']} {r.text}" in novels[r.pair_id] for r in human)


@pytest.mark.parametrize("generator", GENERATORS)
def test_wild_sources_are_of_test_documents_alone(pairs, generator):
    source = EmbeddedWild(generator)
    records = list(source.records())
    check(records)
    assert len(records) >= 160 and {record.split for record in records} == {"test"}
    assert source.name == f"wild_{generator}" and source.describe()["facts"]["generator"] == generator
    seen = {record.pair_id for record in pairs if record.split != "test"}
    assert seen.isdisjoint(record.pair_id for record in records)
    machine = {record.source for record in records if record.label == 1}
    assert len(machine) == 1 and machine.isdisjoint(record.source for record in pairs)


def test_formatting_tells_little(pairs):
    found = character_auroc(
        [record.text for record in pairs],
        [record.label for record in pairs],
        [record.pair_id for record in pairs],
        "shapes",
    )
    assert found.mean <= LEAK


def test_a_damaged_file_is_refused(tmp_path, monkeypatch):
    content = (embedded._FOLDER / "pairs.jsonl.xz").read_bytes()
    monkeypatch.setattr(embedded, "_FOLDER", tmp_path)
    with pytest.raises(RunFailure, match="cannot be read"):
        list(EmbeddedPairs().records())
    (tmp_path / "pairs.jsonl.xz").write_bytes(content)
    assert list(EmbeddedPairs().records())
    monkeypatch.setitem(embedded.SHA256, "pairs.jsonl.xz", "0" * 64)
    with pytest.raises(RunFailure, match="is damaged"):
        list(EmbeddedPairs().records())
