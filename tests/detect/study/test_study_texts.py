"""Which texts a cell of the detection study trains and tests on, where human texts repeat and layouts differ."""

import json
import lzma
from pathlib import Path

import pytest
import yaml

from lit_core.errors import UserError
from lit_core.study.options import bind
from lit_detect.cli import main
from lit_detect.formats import FastDetectGPTJSON
from lit_detect.study import PlainTexts, detection, experiment
from lit_detect.study.texts import records_of

STATISTICS = {"class_path": "lit_detect.detectors.EntityStatistics"}
CONFIG = Path(__file__).parents[3] / "configs" / "detect" / "studies" / "detection_real.yaml"
NAMES = ("Anna Weston", "Emma Hill", "Frank Moore", "Jane Fairfax", "Robert Martin", "Harriet Smith")


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LITSHIFT_DATA", str(tmp_path / "data"))
    records_of.cache_clear()


def human(number):
    one, other = NAMES[number % 6], NAMES[(number + 1) % 6]
    return f"Letter {number:02} tells what {one} did, whom {other} saw, and when. It ended."


def source(name, numbers, cut=None):
    """Write pairs as Fast-DetectGPT does, below the data root: human texts cut to a length, machine texts in lines."""
    document = {
        "original": [human(number)[:cut] for number in numbers],
        "sampled": [f" {human(number)[:60]}\n\n{name} {number} met nobody. Nothing was {name}." for number in numbers],
    }
    path = Path("data/published") / f"letters_{name}.raw_data.json.xz"
    path.parent.mkdir(parents=True, exist_ok=True)
    with lzma.open(path, "wt") as file:
        json.dump(document, file)
    inner = {"class_path": "FastDetectGPTJSON", "init_args": {"path": f"published/{path.name}"}}
    return {"class_path": "lit_detect.study.PlainTexts", "init_args": {"source": inner}}


@pytest.fixture
def read(monkeypatch):
    """The texts that a cell trains on, and those that each judge is asked for."""
    trained, asked = [], []
    judge_of = detection.judge_of

    def watched(described, samples, *arguments):
        judge = judge_of(described, samples, *arguments)
        trained.extend(text for text, _ in samples)

        def ask(texts):
            texts = list(texts)
            asked.extend(texts)
            return judge(texts)

        ask.threshold, ask.task, ask.tell_read_in_part = judge.threshold, judge.task, judge.tell_read_in_part
        return ask

    monkeypatch.setattr(detection, "judge_of", watched)
    return trained, asked


def cell(seed=0, **values):
    shared = {"detector": "S", "detectors": {"S": STATISTICS}, "trained_on": "none", "priming": "none"}
    return experiment(**bind(experiment, {"seed": seed, **shared, **values}))


def letter(text):
    return text.split()[1]


def test_no_human_text_of_the_training_comes_again_in_a_test_whatever_continues_it(read):
    trained, asked = read
    wild = {"large": source("large", range(20, 60), cut=75), "same": source("small", range(40))}
    rows = cell(pairs=source("small", range(40)), wild=wild)
    assert {row["condition"] for row in rows} == {"own", "wild"}
    assert len({letter(text) for text in trained}) == 20
    assert not {letter(text) for text in trained} & {letter(text) for text in asked}
    found = {row["value"]: row["texts"] for row in rows}
    unseen = {f"{number:02}" for number in range(20, 60)} - {letter(text) for text in trained}
    assert found == {"own": 40, "same": 40, "large": 2 * len(unseen)}
    assert all("\n" not in text and text == text.strip() for text in (*trained, *asked))


def test_a_set_from_the_wild_that_is_all_twins_is_told(read, capsys):
    trained, _ = read
    pairs = source("small", range(40))
    cell(pairs=pairs)
    seen = sorted(int(letter(text)) for text in set(trained))
    rows = cell(pairs=pairs, wild={"twins": source("large", seen)})
    assert [row["condition"] for row in rows] == ["own"]
    assert "wild.twins has no pair left whose human text was not trained on" in capsys.readouterr().out


def test_each_class_of_each_condition_has_at_most_so_many_texts(read):
    rows = cell(pairs=source("small", range(40)), wild={"w": source("large", range(60, 90))}, test_texts=7, lengths=[8])
    assert {row["condition"]: row["texts"] for row in rows} == {"own": 14, "wild": 14, "length": 14}


def test_pairs_without_a_split_are_divided_once_for_all_seeds():
    options = bind(
        experiment,
        {"seed": 0, "detector": "S", "detectors": {"S": STATISTICS}, "trained_on": "none", "priming": "none"}
        | {"pairs": source("small", range(31))},
    )["options"]
    splits = {}
    for record in records_of(options.pairs):
        splits.setdefault(record.pair_id, set()).add(record.split)
    assert all(len(split) == 1 for split in splits.values())
    assert sorted(split for each in splits.values() for split in each).count("test") in (15, 16)


def test_plain_texts_keep_the_words_alone():
    source("small", range(2))
    made = PlainTexts(FastDetectGPTJSON("published/letters_small.raw_data.json.xz"), words=5)
    assert [record.text for record in made.records()][:2] == ["Letter 00 tells what Anna"] * 2
    assert made.facts()["words"] == 5
    with pytest.raises(UserError, match="words is 0"):
        PlainTexts(FastDetectGPTJSON("published/letters_small.raw_data.json.xz"), words=0)


def test_who_lacks_the_real_texts_gets_a_sentence(capsys):
    assert main(["study", "--config", str(CONFIG)]) == 1
    said = capsys.readouterr().err
    assert "fast_detectgpt/xsum_gpt2-xl.raw_data.json.xz, but there is no such file or folder" in said
    assert not list(Path("runs").rglob("result.json"))


def test_the_study_of_real_texts_reads_no_reserved_file():
    text = CONFIG.read_text()
    assert "gpt-4" not in text.lower() and "pubmed" not in text.lower()
    wild = yaml.safe_load(text)["grids"]["detectors"]["arguments"]["wild"]
    assert {"davinci", "gpt-3.5-turbo", "stories", "encyclopedia"} < set(wild)
