"""Bad rows end a command or are set aside, in every format that is prepared and in every command that reads labels."""

import csv
import json
from pathlib import Path

import pytest
from format_files import WRITERS
from test_text_formats import CONFIGS

from lit_core.cli import run
from lit_core.errors import UserError
from lit_core.files.bad_rows import BadRows
from lit_core.files.yaml_files import read_mapping
from lit_detect.commands.calibrate import calibrate
from lit_detect.commands.report import gather
from lit_detect.data.one_class import read_texts
from lit_detect.data.prepare import prepare
from lit_detect.formats import RAIDCSV, LitShiftJSONL, TextTable
from lit_detect.records import HUMAN, MACHINE

LINES = [
    {"text": "By hand.", "label": 0},
    {"text": "By whom?", "label": "perhaps"},
    {"text": "By machine.", "label": 1},
    {"text": None, "label": 1},
    {"text": "Unlabelled."},
]


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LITSHIFT_DATA", str(tmp_path / "data"))


def damage(file):
    """Add a bad row to a file of any format."""
    if file.suffix == ".json":
        content = json.loads(file.read_text())
        for part in [content, *content.values()]:
            for texts in part.values() if isinstance(part, dict) else ():
                if isinstance(texts, list) and isinstance(texts[0], str):
                    texts[0] = None
                    file.write_text(json.dumps(content))
                    return
    with file.open("a") as opened:
        opened.write("bad\n")


@pytest.mark.parametrize("path", [path for path in CONFIGS if path.stem != "embedded"], ids=lambda path: path.stem)
def test_every_format_sets_bad_rows_aside(path, capsys):
    WRITERS[path.stem](40)
    kinds = (".jsonl", ".csv", ".raw_data.json", "Essay_ChatGPT.json")
    files = [file for file in sorted(Path().rglob("*")) if file.name.endswith(kinds)]
    file = next((file for file in files if "webtext" in file.name), files[0])  # of GPT-2's files not all are read
    damage(file)
    command = ["prepare", "--config", str(path)]
    assert run("lit-detect", None, {"prepare": prepare}, command) == 2
    assert file.name in capsys.readouterr().err and not Path("data/texts").exists()
    assert run("lit-detect", None, {"prepare": prepare}, [*command, "--on_error", "skip"]) == 0
    assert "1 bad row is set aside, with the reason: " in capsys.readouterr().out
    (aside,) = [row for found in Path("data/texts").glob("*/set_aside.csv") for row in csv.DictReader(found.open())]
    assert Path(aside["file"].partition(", ")[0]).name == file.name and aside["row"] and aside["reason"]
    assert run("lit-detect", None, {"prepare": prepare}, [*command, "--on_error", "skip"]) == 0
    assert "unchanged" in capsys.readouterr().out


def test_texts_that_cannot_be_prepared_are_set_aside_too():
    rows = [{"id": str(n), "text": f"Text {n} of many.", "label": n % 2} for n in range(40)]
    rows += [{"id": "3", "text": "Its id was there.", "label": 0}, {"id": "e", "text": " ", "label": 0}]
    rows += [{"id": "u", "text": "Unlabelled."}]
    Path("t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    summary = prepare("texts", [LitShiftJSONL("t.jsonl", "mine")], on_error="skip")
    assert sum(split["human"] + split["machine"] for split in summary["mine"].values()) == 40
    found = list(csv.DictReader(Path("data/texts/mine/set_aside.csv").open()))
    assert [row["row"] for row in found] == ["text 41", "text 42", "text 43"]
    words = ["'3' occurs twice", "'e' of the source mine is empty", "'u' of the source mine has no label"]
    assert all(word in row["reason"] for word, row in zip(words, found, strict=True))


def test_labels_that_cannot_be_read_are_set_aside():
    Path("t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in LINES))
    for label, argument in ((HUMAN, "human"), (MACHINE, "machine")):
        with pytest.raises(UserError, match=r"t\.jsonl, line [24]"):
            read_texts("t.jsonl", argument, label)
        texts, _ = read_texts("t.jsonl", argument, label, bad=(bad := BadRows("skip")))
        assert texts == [f"By {('hand', 'machine')[label]}.", "Unlabelled."]
        assert [row.row for row in bad.rows] == ["line 4", "line 2"]
    (records,) = gather(["t.jsonl"], "test", bad := BadRows("skip")).values()
    assert [record.text for record in records] == ["By hand.", "By machine."]
    assert [row.row for row in bad.rows] == ["line 4", "line 2", "line 5"]


def test_a_list_of_bad_rows_that_exists_is_not_replaced():
    Path("calibration.set_aside.csv").write_text("mine")
    with pytest.raises(UserError, match=r"set aside is calibration\.set_aside\.csv, which exists already"):
        calibrate("t.jsonl", "none.ckpt", on_error="skip")
    BadRows("skip").write(Path("calibration.set_aside.csv"))  # of a calibration that was killed
    with pytest.raises(UserError, match=r"t\.jsonl, but there is no such file"):
        calibrate("t.jsonl", "none.ckpt", on_error="skip")


def test_a_data_set_of_the_hub_is_prepared_as_a_file():
    import datasets

    Path("set").mkdir()
    rows = {"id": [str(n) for n in range(40)], "generation": [f"Text {n}." for n in range(40)]}
    rows["model"] = ["human" if n % 2 else "gpt2" for n in range(40)]
    datasets.Dataset.from_dict(rows).to_parquet("set/train.parquet")
    classes = datasets.ClassLabel(names=["machine", "human"])
    labelled = {"text": rows["generation"], "label": [n % 2 for n in range(40)]}
    Path("other").mkdir()
    datasets.Dataset.from_dict(labelled).cast_column("label", classes).to_parquet("other/train.parquet")
    sources = [RAIDCSV("hf:./set:train"), TextTable("mine", "hf:./other"), TextTable("file", "other/train.parquet")]
    for name, splits in prepare("texts", sources).items():
        assert sum(split["human"] for split in splits.values()) == 20, name
    for source in sources:
        assert all((record.label == HUMAN) == (int(record.text[5:-1]) % 2 == 1) for record in source.records())
    assert sources[0].facts()["data_sets"] == ["hf:./set:train"]


def test_the_config_of_raid_is_one_of_the_writer():
    config = read_mapping(Path(__file__).parents[3] / "configs/detect/predict/raid.yaml")
    assert config["data"]["init_args"] == {"text_column": "generation"}
    (writer,) = config["trainer"]["callbacks+"]
    assert writer["init_args"] == {"format": "raid"}
