"""Words with tags and plain texts, as people have them, become token ids with a target each."""

import json
from itertools import pairwise

import pytest
import torch

from lit_core.errors import UserError
from lit_core.lm.tokenizer import Tokenizer
from lit_valuation.cli import main
from lit_valuation.data.concatenated_sets import ConcatenatedSets
from lit_valuation.data.labelled_sets import LabelledSet
from lit_valuation.data.vocabulary import stored_tokenizer
from lit_valuation.samples import next_tokens
from lit_valuation.sources import PlainTexts, ShardFolder, TaggedWords

ROWS = [
    {"tokens": ["Anna", "lives", "in", "Köln", "."], "ner_tags": ["PER", "O", "O", "LOC", "O"]},
    {"tokens": ["Rain"], "ner_tags": ["O"]},
]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def words_and_tags(samples, tokenizer):
    """Read words and tags back: a word begins where a tag is."""
    found = []
    for x, y in zip(samples.x, samples.y, strict=True):
        ids, tags = x[x >= 0].tolist(), y[x >= 0].tolist()
        starts = [i for i, tag in enumerate(tags) if tag != -100] + [len(ids)]
        words = [tokenizer.decode(ids[a:b]).strip() for a, b in pairwise(starts)]
        found.append((words, [samples.classes[tag] for tag in tags if tag != -100]))
    return found


@pytest.fixture(scope="module")
def merged(tmp_path_factory):
    """A tokenizer of several bytes per token."""
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    Tokenizer.train_bpe(["Anna lives in Köln. Rain in Köln; Anna lives."] * 20, 300).save(path)
    return str(path)


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "conll", "numbers", "saved"])
@pytest.mark.parametrize("spec", ["bytes", "merged"])
def test_the_first_token_of_a_word_has_its_tag(kind, spec, tmp_path, merged):
    spec = merged if spec == "merged" else spec
    given = {}
    path = tmp_path / "mine.jsonl"
    if kind == "conll":
        path = tmp_path / "mine.conll"
        lines = [
            "\n".join(f"{w} X {t}" for w, t in zip(r["tokens"], r["ner_tags"], strict=True)) + "\n\n" for r in ROWS
        ]
        path.write_text("-DOCSTART- -X- O\n\n" + "".join(lines))
    elif kind == "parquet":
        import pyarrow as pa
        from pyarrow import parquet

        path = tmp_path / "mine.parquet"
        parquet.write_table(pa.Table.from_pylist(ROWS), path)
    elif kind == "saved":
        datasets = pytest.importorskip("datasets")
        names = datasets.ClassLabel(names=["O", "PER", "LOC", "MISC"])
        rows = [row | {"ner_tags": [names.str2int(tag) for tag in row["ner_tags"]]} for row in ROWS]
        path = tmp_path / "mine"
        features = datasets.Features(tokens=datasets.List(datasets.Value("string")), ner_tags=datasets.List(names))
        datasets.Dataset.from_list(rows, features=features).save_to_disk(str(path))
    else:
        numbers = {"PER": 1, "LOC": 2, "O": 0}
        rows = ROWS
        if kind == "numbers":
            rows = [row | {"ner_tags": [numbers[tag] for tag in row["ner_tags"]]} for row in ROWS]
            given["names"] = ["O", "PER", "LOC"]
        write(path, rows)
    samples = TaggedWords(str(path), spec, length=32, **given).samples()
    assert samples.x.shape == samples.y.shape == (2, 32)
    assert words_and_tags(samples, Tokenizer.load(spec)) == [(row["tokens"], row["ner_tags"]) for row in ROWS]
    if kind == "saved":
        assert samples.classes == ("O", "PER", "LOC", "MISC") and samples.counts()["MISC"] == 0


def test_the_target_of_a_text_is_the_next_token(tmp_path, capsys):
    path = write(tmp_path / "mine.jsonl", [{"text": "Köln"}, {"text": "ab"}])
    samples = PlainTexts(path, "bytes", length=4).samples()
    ids = list("Köln".encode())
    assert samples.x.tolist() == [ids[:4], [97, 98, -1, -1]]
    assert samples.y.tolist() == [[*ids[1:4], -100], [98, -100, -100, -100]]
    assert "1 of 2 texts are longer than 4 tokens" in capsys.readouterr().out


WRONG = {
    "1 tokens and 2 ner_tags": {"tokens": ["a"], "ner_tags": ["O", "O"]},
    "is not a word": {"tokens": ["a", " "], "ner_tags": ["O", "O"]},
    "the cell is empty": {"tokens": ["a"], "ner_tags": [""]},
    "must be a list": {"tokens": "a", "ner_tags": ["O"]},
    "the tag 1 has no name": {"tokens": ["a"], "ner_tags": [1]},
    "no column ner_tags": {"tokens": ["a"], "tags": ["O"]},
    "0 tokens and 0 ner_tags": {"tokens": [], "ner_tags": []},
}


@pytest.mark.parametrize("said", WRONG)
def test_rows_that_do_not_fit_are_refused_with_their_line(said, tmp_path):
    path = write(tmp_path / "mine.jsonl", [ROWS[0], WRONG[said]])
    with pytest.raises(UserError, match=f"line 2.*{said}"):
        TaggedWords(path, "bytes").samples()


def test_what_else_does_not_fit_is_refused(tmp_path):
    path = write(tmp_path / "mine.jsonl", ROWS)
    with pytest.raises(UserError, match="LOC is not among the tags O, PER"):
        TaggedWords(path, "bytes", names=["O", "PER"]).samples()
    with pytest.raises(UserError, match="must be different tags"):
        TaggedWords(path, "bytes", names=["O", "O"])
    with pytest.raises(UserError, match="length is 1"):
        TaggedWords(path, "bytes", length=1)
    with pytest.raises(UserError, match="there is no such file"):
        TaggedWords(str(tmp_path / "no.jsonl"), "bytes")
    with pytest.raises(UserError, match="line 1: text is 'a', but must be a text of two or more tokens"):
        PlainTexts(write(tmp_path / "short.jsonl", [{"text": "a"}]), "bytes").samples()
    (tmp_path / "latin.conll").write_bytes("Köln LOC\n".encode("latin-1"))
    with pytest.raises(UserError, match="is not valid UTF-8"):
        TaggedWords(str(tmp_path / "latin.conll"), "bytes").samples()
    (tmp_path / "bad.conll").write_text("Anna PER\nlives\n")
    with pytest.raises(UserError, match="line 2 has no tag after 'lives'"):
        TaggedWords(str(tmp_path / "bad.conll"), "bytes").samples()


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LITSHIFT_DATA", str(tmp_path / "data"))

    def run(*args, code=0):
        assert main([*map(str, args)]) == code
        said = capsys.readouterr()
        return said.out + said.err

    return run


def rows(n):
    return [{"tokens": [f"w{i}", "is", str(i)], "ner_tags": ["NOUN", "VERB", "NUM"]} for i in range(n)]


def test_prepared_tags_are_those_of_the_source(run, tmp_path):
    write(tmp_path / "mine.jsonl", rows(20))
    given = ["--source", "TaggedWords", "--source.path", "mine.jsonl", "--source.tokenizer", "bytes"]
    (tmp_path / "map.csv").write_text("class,shared\nNOUN,N\nVERB,\nNUM,D\n")
    run("prepare", "--root", "./plain", *given, "--source.length", 16)
    run("prepare", "--root", "./renamed", *given, "--source.length", 16, "--classes", "map.csv")
    source = TaggedWords("mine.jsonl", "bytes", length=16).samples()
    by_key = dict(zip(source.keys, zip(source.x, source.y, strict=True), strict=True))
    plain, renamed = (LabelledSet(tmp_path / root / "train") for root in ("plain", "renamed"))
    for key, x, y in zip(plain.load().keys, plain.load().x, plain.load().y, strict=True):
        assert torch.equal(x, by_key[key][0]) and torch.equal(y, by_key[key][1])
    assert plain.classes == ("NOUN", "NUM", "VERB") and renamed.classes == ("D", "N")
    of_map = renamed.load()
    assert bool(((of_map.y >= 0).sum(1) == 2).all())
    assert torch.equal(plain.targets().y, plain.load().y)
    both = ConcatenatedSets([plain, plain], ("VERB", "NOUN", "NUM"))
    batch = both.batch([1, 20, 0])
    assert batch["x"].dtype == torch.int64 and torch.equal(batch["x"][0], plain.load().x[1])
    assert [both.classes[tag] for tag in batch["y"][2].tolist() if tag >= 0] == ["NOUN", "VERB", "NUM"]
    with pytest.raises(UserError, match="of the tag 'NOUN'"):
        ConcatenatedSets([renamed, plain])


def test_prepared_texts_are_those_of_the_source(run, tmp_path):
    write(tmp_path / "mine.jsonl", [{"text": f"text {i}"} for i in range(20)])
    given = ["--source", "PlainTexts", "--source.path", "mine.jsonl", "--source.tokenizer", "bytes"]
    said = run("prepare", "--root", "./own", *given, "--source.length", 16)
    assert "Train on it  a language model of your own, by Lightning on OwnersDataModule('./own')" in said
    train = LabelledSet(tmp_path / "own/train")
    assert train.target == "text" and torch.equal(train.load().y, next_tokens(train.load().x))
    assert torch.equal(train.targets().y, train.load().y)
    (tmp_path / "map.csv").write_text("class,shared\na,b\n")
    said = run("prepare", "--root", "./x", *given, "--classes", "map.csv", code=2)
    assert "have no names; leave it out" in said


def test_another_vocabulary_is_refused(run, tmp_path, merged):
    write(tmp_path / "mine.jsonl", rows(20))
    for root, spec in (("one", "bytes"), ("two", merged)):
        given = ["--source", "TaggedWords", "--source.path", "mine.jsonl", "--source.tokenizer", spec]
        run("prepare", "--root", f"./{root}", *given, "--source.length", 16)
    with pytest.raises(UserError, match="prepare both with one tokenizer"):
        ConcatenatedSets([LabelledSet(tmp_path / root / "train") for root in ("one", "two")])
    val = ["--val", "TaggedWords", "--val.path", "mine.jsonl", "--val.tokenizer", merged, "--val.length", 16]
    said = run(
        "prepare", "--root", "./x", *given[:-2], "--source.tokenizer", "bytes", "--source.length", 16, *val, code=2
    )
    assert "val holds tokens of the vocabulary" in said
    said = run("divide", "--root", "./y", *given, "--source.length", 16, code=2)
    assert "have tags, but divide goes by classes" in said


def test_the_tokenizer_lies_beside_prepared_texts_and_another_one_is_refused(run, tmp_path, merged):
    write(tmp_path / "mine.jsonl", rows(20))
    given = ["--source", "TaggedWords", "--source.path", "mine.jsonl", "--source.tokenizer", merged]
    run("prepare", "--root", "./own", *given, "--source.length", 16)
    own, vocabulary = tmp_path / "own", LabelledSet(tmp_path / "own/train").vocabulary
    stored = stored_tokenizer(own, vocabulary)
    assert stored.sha256 == Tokenizer.load(merged).sha256
    assert ShardFolder(str(own / "train")).tokenizer.sha256 == stored.sha256
    assert stored_tokenizer(own, None) is None
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (own / name).unlink()
    assert stored_tokenizer(own, vocabulary) is None
    Tokenizer.bytes().save(own)
    with pytest.raises(UserError, match="is not the tokenizer of the texts beside it"):
        stored_tokenizer(own, vocabulary)
    (own / "tokenizer.json").unlink()
    run("prepare", "--root", "./own", *given, "--source.length", 16)  # writes what is missing
    assert stored_tokenizer(own, vocabulary).sha256 == stored.sha256
