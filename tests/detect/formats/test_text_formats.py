"""Every format as its owners write it, read, counted, prepared by its YAML; and a broken line is named."""

import gzip
import json
import lzma
import tracemalloc
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
import torch
from austen_pairs import pairs, passages, shuffled
from format_files import WRITERS, N, document, lines, table

import lit_detect.formats as formats
from lit_core.cli import run
from lit_core.errors import UserError
from lit_detect.data.prepare import prepare
from lit_detect.data.text_shards import TextSet
from lit_detect.formats import TextSource
from lit_detect.records import HUMAN, MACHINE, Record
from lit_detect.report.evaluate import Evaluated, attacks

FOLDER = Path(__file__).parents[3] / "configs" / "detect" / "prepare"
CONFIGS = sorted(FOLDER.glob("*.yaml"))


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LITSHIFT_DATA", str(tmp_path / "data"))


#: Human and machine texts of each split, of the first source of each YAML.
EXPECTED = {
    "binoculars": {"train": (24, 24), "val": (3, 3), "test": (3, 3)},
    "coco": {"train": (30, 30), "val": (30, 30), "test": (30, 30)},
    "embedded": {"train": (159, 159), "val": (40, 40), "test": (99, 99)},
    "fast_detectgpt": {"train": (24, 24), "val": (3, 3), "test": (3, 3)},
    "gpt2_output": {"train": (30, 90), "val": (30, 90), "test": (30, 90)},
    "grover": {"train": (16, 16), "val": (7, 7), "test": (7, 7)},
    "imgtb": {"train": (24, 24), "val": (3, 3), "test": (3, 3)},
    "litshift": {"train": (24, 24), "val": (3, 3), "test": (3, 3)},
    "m4": {"train": (24, 48), "val": (3, 6), "test": (3, 6)},
    "mgtbench": {"train": (27, 27), "val": (3, 3), "test": (30, 30)},
    "pu": {"test": (30, 30)},
    "raid": {"train": (48, 96), "val": (6, 12), "test": (6, 12)},
    "table": {"train": (24, 24), "val": (3, 3), "test": (3, 3)},
}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_prepares_what_it_names(path, capsys):
    assert path.read_text().splitlines()[1] == f"#   lit-detect prepare --config configs/detect/prepare/{path.name}"
    WRITERS[path.stem]()
    assert run("lit-detect", None, {"prepare": prepare}, ["prepare", "--config", str(path)]) == 0, capsys.readouterr()
    root = Path("data/texts")
    found = {folder.name: {} for folder in root.iterdir()}
    for source, splits in found.items():
        for split in ("train", "val", "test"):
            if (root / source / split).is_dir():
                texts = TextSet(root / source / split)
                splits[split] = (texts.meta["human"], texts.meta["machine"])
                for number in range(len(texts)):
                    record = texts.record(number)
                    assert record.split == split and record.text.strip()
                    assert (record.source == "human") == (record.label == HUMAN)
                    assert record.label == MACHINE or not record.decoding
    if path.stem in EXPECTED:
        assert found.get(path.stem, next(iter(found.values()))) == EXPECTED[path.stem]
    else:
        both = [sum(counts[label] for counts in found["hc3"].values()) for label in (0, 1)]
        assert both == [N + 20, N], "an answer that repeats, an empty list and blank answers are left out"


def read(name, /, **arguments):
    return list(getattr(formats, name)(**arguments).records())


def test_pu_takes_text_or_article_and_names_generators_after_files():
    WRITERS["pu"](5)
    found = read("PuJSONL", path="wild", name="wild", domain="news")
    assert Counter(record.source for record in found) == {
        "human": 20, "AI-Writer": 5, "ArticleForge": 5, "Kafkai": 5, "RedditBot": 5
    }  # fmt: skip
    assert found[10].text == passages(1)[0] and found[10].meta == {"id": "0"} and found[0].domain == "news"
    lines("own/train.jsonl", [{"id": 1, "text": "a b", "label": "machine"}])
    (record,) = read("PuJSONL", path="own", name="own")
    assert (record.split, record.source) == ("train", "own")


def test_grover_pairs_articles_and_leaves_burners_out():
    WRITERS["grover"]()
    path = "generator=mega~dataset=p0.94.jsonl"
    found = read("GroverJSONL", path=path)
    assert len(found) == 2 * N and len(read("GroverJSONL", path=path, burner=True)) == 2 * N + 6
    assert found[1].pair_id == found[0].pair_id == "0" and found[2].pair_id == "1"
    assert found[1].source == "grover-mega" and found[1].decoding == {"top_p": 0.94} and not found[0].decoding
    assert found[0].meta["site"] == "cnn.com" and found[0].domain == "news" and found[2 * 2].split == "val"
    given = read("GroverJSONL", path=path, generator="g", top_p=0.5)
    assert (given[1].source, given[1].decoding) == ("g", {"top_p": 0.5})


def test_gpt2_output_is_labelled_by_file_names():
    WRITERS["gpt2_output"](3)
    found = read("GPT2OutputDataset", path="gpt-2-output-dataset/data")
    about = {(record.source, record.label, tuple(record.decoding.items())) for record in found}
    assert about == {
        ("human", 0, ()),
        ("small-117M", 1, (("temperature", 1.0),)),
        ("xl-1542M", 1, (("temperature", 1.0),)),
        ("xl-1542M-k40", 1, (("temperature", 1.0), ("top_k", 40))),
        ("xl-1542M-nucleus", 1, (("temperature", 1.0), ("strategy", "nucleus"))),
    }
    assert Counter(record.split for record in found) == {"train": 15, "val": 15, "test": 15}
    with pytest.raises(UserError, match=r'xl-1542M-k4,.*"xl-1542M-k40"'):
        formats.GPT2OutputDataset("gpt-2-output-dataset/data", generators=["xl-1542M-k4"])
    lines("gpt-2-output-dataset/data/notes.jsonl", [])
    with pytest.raises(UserError, match=r"notes\.jsonl is not named"):
        formats.GPT2OutputDataset("gpt-2-output-dataset/data")


def test_raid_groups_a_source_with_its_attacks():
    WRITERS["raid"](4)
    found = read("RAIDCSV", path="raid/train_none.csv")
    assert len(found) == 24 and {record.pair_id for record in found[:6]} == {"0-human"}
    human, greedy, sampled, attacked = found[0], found[1], found[2], found[3]
    assert human.label == HUMAN and not human.decoding and human.attack == "" and attacked.attack == "homoglyph"
    assert greedy.decoding == {"strategy": "greedy", "repetition_penalty": "no"} and greedy.domain == "books"
    assert sampled.decoding == {"strategy": "sampling", "repetition_penalty": "yes"} and sampled.source == "mpt"
    assert human.meta == {"title": 'A "title",\nin two lines', "adv_source_id": "0-human"}
    assert human.text == passages(1)[0]
    [(name, values)] = attacks(Evaluated("d", "D", found, torch.ones(24).double(), 0.5, 0.0, 0))
    assert name == "homoglyph" and values["texts"] == values["detected"] == 8  # each machine text has its original
    table("raid/test.csv", [{"id": "1", "generation": "x"}])
    (unlabelled,) = read("RAIDCSV", path="raid/test.csv")
    assert (unlabelled.id, unlabelled.text, unlabelled.label) == ("1", "x", None)
    with pytest.raises(UserError, match=r"'1' of the source raid has no label, .* give it to `predict`"):
        prepare("texts", [formats.RAIDCSV("raid/test.csv")])


def test_hc3_explodes_its_lists():
    WRITERS["hc3"](6)
    found = read("HC3", path="hc3/all.jsonl")
    first = [record for record in found if record.pair_id == found[0].pair_id]
    assert [record.id for record in first] == ["all-0000001-human-0", "all-0000001-chatgpt-1"]
    assert first[1].source == "chatgpt" and first[1].domain == "finance" and first[1].meta["question"].startswith("Why")
    lines("finance.jsonl", [{"question": "Q", "human_answers": ["a"], "chatgpt_answers": ["b"]}])
    assert {record.domain for record in read("HC3", path="finance.jsonl")} == {"finance"}


def test_m4_pairs_by_source_over_files():
    WRITERS["m4"](2)
    found = read("M4", path="m4/data")
    assert [record.pair_id for record in found] == ["arxiv-0", "arxiv-0", "arxiv-1", "arxiv-1"] * 2
    assert [record.source for record in found] == ["human", "chatGPT"] * 2 + ["human", "davinci"] * 2
    lines("wiki_bloomz.jsonl", [{"human_text": "a", "machine_text": "b"}])
    human, machine = read("M4", path="wiki_bloomz.jsonl")
    assert (machine.domain, machine.source) == ("wiki", "bloomz") and human.pair_id == machine.pair_id


def test_fast_detectgpt_reads_the_decoding_beside_it():
    WRITERS["fast_detectgpt"](3)
    human, machine = read("FastDetectGPTJSON", path="exp_main/data")[:2]
    assert machine.decoding == {"top_p": 0.96, "seed": 3} and not human.decoding
    assert (machine.source, machine.domain) == ("gpt2-xl", "xsum") and human.pair_id == machine.pair_id
    Path("exp_main/data/xsum_gpt2-xl.args.json").unlink()
    bare = read("FastDetectGPTJSON", path="exp_main/data")[1]
    assert (bare.source, bare.domain, bare.decoding) == ("gpt2-xl", "xsum", {})


def test_cuts_of_one_human_text_in_several_files_of_fast_detectgpt_stay_together(tmp_path):
    story = " ".join(f"word{number}" for number in range(60))
    for name, cut in (("writing_gpt2-xl", 200), ("writing_davinci", 240)):
        content = {"original": [story[:cut], "another story"], "sampled": [f"{name} one", f"{name} two"]}
        with lzma.open(tmp_path / f"{name}.raw_data.json.xz", "wt") as file:
            json.dump(content, file)
    found = read("FastDetectGPTJSON", path=str(tmp_path))
    assert [record.source for record in found if record.label] == ["davinci"] * 2 + ["gpt2-xl"] * 2
    pairs = [record.pair_id for record in found]
    assert pairs[:2] == pairs[4:6] and pairs[2:4] == pairs[6:] and len(set(pairs)) == 2


def test_binoculars_takes_the_last_machine_key():
    WRITERS["binoculars"](3)
    path = "datasets/core/cc_news/cc_news-llama2_13.jsonl"
    human, machine = read("BinocularsJSONL", path=path)[:2]
    assert machine.source == "meta-llama-Llama-2-13b-hf" and machine.text == shuffled(human.text)
    assert human.domain == "cc_news" and human.pair_id == machine.pair_id
    given = read("BinocularsJSONL", path=path, machine_key="old_generated_text_wo_prompt")
    assert given[1].text == "x" and given[1].source == "old"


def test_litshift_records_come_back(tmp_path):
    given = [*pairs(3), Record("x", "y", None, "val", "g", "d", "p", {"seed": 1}, "a", {"b": None})]
    lines("r.jsonl.gz", [record.to_dict() for record in given])
    assert read("LitShiftJSONL", path="r.jsonl.gz", name="r") == given
    lines("short.jsonl", [{"id": "1", "text": "t", "label": "Human", "split": "dev"}])
    assert read("LitShiftJSONL", path="short.jsonl", name="r") == [Record("1", "t", 0, "val", "human")]


def test_a_table_has_columns_of_any_name():
    rows = [
        {"key": "a", "body": "one", "kind": "Bot ", "fold": "dev", "llm": "g", "topic": "t", "doc": 7, "change": "x"},
        {"key": "b", "body": "two", "kind": "person", "fold": "", "llm": "", "topic": "", "doc": "", "change": ""},
    ]
    names = {"text": "body", "label": "kind", "id": "key", "split": "fold", "generator": "llm", "domain": "topic"}
    names |= {"pair": "doc", "attack": "change"}
    columns = {f"{name}_column": column for name, column in names.items()}
    expected = [Record("a", "one", 1, "val", "g", "t", "7", attack="x"), Record("b", "two", 0, "", "human")]
    table("t.csv", rows)
    table("t.tsv", rows, "\t")
    lines("t.jsonl.gz", rows)
    for file in ("t.csv", "t.tsv", "t.jsonl.gz"):
        assert read("TextTable", name="t", path=file, human_values=["Person"], **columns) == expected
        assert read("TextTable", name="t", path=file, machine_values=["bot"], **columns) == expected
        with pytest.raises(UserError, match=r"line [23] has the label 'person'.*not among bot, human"):
            read("TextTable", name="t", path=file, machine_values=["bot"], human_values=["human"], **columns)
    with pytest.raises(UserError, match=r"t\.csv, line 2 has no 'labels'.* There are key, body, kind"):
        read("TextTable", name="t", path="t.csv", text_column="body", label_column="labels")
    assert [r.label for r in read("TextTable", name="t", machine_path="t.csv", text_column="body")] == [1, 1]


#: A broken file of each format, and what is said of it. The first line or item is whole.
GOOD = {"id": "1", "text": "a b", "article": "a b", "label": "human", "question": "q", "human_answers": ["a"]}
GOOD |= {"chatgpt_answers": ["b"], "human_text": "a", "machine_text": "b", "x_generated_text": "c"}
BROKEN = {
    "PuJSONL": ({"id": 1, "text": "b", "label": "maybe"}, "'maybe', which says neither human nor machine"),
    "GroverJSONL": ({"label": "human"}, "has no 'article'"),
    "HC3": ({"question": "q", "human_answers": "a"}, "human_answers is a str, but must be a list"),
    "M4": ({"human_text": "a", "machine_text": None}, "machine_text is a null, but must be a text"),
    "BinocularsJSONL": ({"text": "a"}, "no key with generated_text"),
    "CoCoJSONL": ({"article": 5, "label": "human"}, "article is a number"),
    "LitShiftJSONL": ({"id": "1", "text": "a", "lable": 1}, 'lable.* Did you mean "label"'),
    "TextTable": ({"text": "a", "label": True}, "has the label True"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_line_is_named(name):
    row, words = BROKEN[name]
    good = {key: GOOD[key] for key in ("id", "text", "label")} if name == "LitShiftJSONL" else GOOD
    lines("f.jsonl", [good, row])
    arguments = {"path": "f.jsonl", "name": "f"}
    with pytest.raises(UserError, match=rf"f\.jsonl, line 2.*{words}") as error:
        read(name, **arguments)
    assert "\n" not in str(error.value)
    Path("f.jsonl").write_text(json.dumps(good) + "\n" + json.dumps(good)[:-4])
    with pytest.raises(UserError, match=r"f\.jsonl, line 2 is not valid JSON.*may be truncated"):
        read(name, **arguments)


def test_broken_documents_and_tables_are_named():
    document("a.json", {"train": {"text": ["a", "b"], "label": [0]}})
    with pytest.raises(UserError, match=r"a\.json, train has 2 texts but 1 labels"):
        read("MGTBench", path="a.json")
    document("a.json", {"train": {"text": ["a", None], "label": [0, 1]}})
    with pytest.raises(UserError, match=r"a\.json, train, text 1 is a null"):
        read("MGTBench", path="a.json")
    document("b.raw_data.json", {"original": ["a"], "sampled": []})
    with pytest.raises(UserError, match=r"1 original but 0 sampled"):
        read("FastDetectGPTJSON", path="b.raw_data.json")
    Path("b.raw_data.json").write_text('{"original": ["a"], "sam')
    with pytest.raises(UserError, match=r"b\.raw_data\.json is not valid JSON.*truncated"):
        read("FastDetectGPTJSON", path="b.raw_data.json")
    Path("g").mkdir()
    lines("g/webtext.train.jsonl", [{"text": "a"}, {"txt": "a"}])
    with pytest.raises(UserError, match=r"webtext\.train\.jsonl, line 2 has no 'text'.*\"txt\""):
        read("GPT2OutputDataset", path="g")
    WRITERS["raid"](1)
    content = Path("raid/train_none.csv").read_text()
    Path("raid/train_none.csv").write_text(content[: content.rindex(",books")])
    with pytest.raises(UserError, match=r"train_none\.csv, line \d+ ends a row of 7 cells.*names 11"):
        read("RAIDCSV", path="raid/train_none.csv")
    Path("t.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match=r"t\.parquet is not a complete Parquet file"):
        read("TextTable", name="t", path="t.parquet")


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("PuJSONL", {"path": "none.jsonl", "name": "a"}, r"path of the source a is none\.jsonl, but there is no"),
        ("PuJSONL", {"path": "empty", "name": "a"}, r"a folder without files that end in \.jsonl"),
        ("PuJSONL", {"path": "x.jsonl", "name": "a/b"}, "named 'a/b'"),
        ("PuJSONL", {"path": "x.jsonl", "name": "a", "split": "dev"}, "split of the source a is dev"),
        ("TextTable", {"name": "a"}, "path of the source a is missing"),
        ("TextTable", {"path": "x.xls", "name": "a"}, r"x\.xls of the source a must end in"),
        (
            "TextTable",
            {"path": "x.jsonl", "name": "a", "human_values": ["x"], "machine_values": ["X "]},
            "'x' is in both",
        ),
    ],
)
def test_arguments_are_checked_in_one_sentence(name, arguments, words):
    Path("empty").mkdir()
    for file in ("x.jsonl", "x.xls"):
        Path(file).write_text("")
    with pytest.raises(UserError, match=words):
        getattr(formats, name)(**arguments)


def test_large_files_are_streamed():
    with gzip.open("big.jsonl.gz", "wt") as file:
        for number in range(3000):
            file.write(json.dumps({"id": f"{number}", "text": "word " * 4000, "label": number % 2}) + "\n")
    source = formats.LitShiftJSONL("big.jsonl.gz", "big")
    list(islice(source.records(), 2))
    tracemalloc.start()
    assert sum(len(record.text) for record in source.records()) == 3000 * 20_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2e6, "60 MB of text, a text at a time"


def test_facts_change_with_files_and_arguments():
    lines("a.jsonl", [{"id": "1", "text": "a", "label": 0}])
    source = formats.LitShiftJSONL("a.jsonl", "a")
    before = source.describe()
    assert json.loads(json.dumps(before)) == before and before["class"] == "LitShiftJSONL"
    assert formats.LitShiftJSONL("a.jsonl", "a", split="test").describe() != before
    lines("a.jsonl", [{"id": "1", "text": "a", "label": 0}] * 2)
    assert source.describe() != before
    assert isinstance(source, TextSource)
