"""One party's own data by one command: splits, given or drawn, a class map, copies, and the way from there."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from lit_core.errors import UserError
from lit_core.moved_names import MOVED_CONFIGS
from lit_valuation.cli import main
from lit_valuation.commands.prepare import prepare
from lit_valuation.data.labelled_sets import LabelledSet
from lit_valuation.data.module import OwnersDataModule
from lit_valuation.sources import Arrays, Digits, SklearnTable, Table

ROWS = "\n".join(f"{i},{i * 37 % 101},{('calm', 'attack')[i % 2]}" for i in range(40)) + "\n"


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LITSHIFT_DATA", str(tmp_path / "data"))
    Path("rows.csv").write_text("a,b,label\n" + ROWS)
    return tmp_path


def loaded(root):
    return {path.parent.name: LabelledSet(path.parent).load() for path in sorted(Path(root).glob("*/index.json"))}


def test_each_sample_is_in_one_split_and_its_origin_is_told():
    summary = prepare("./own", Table("rows.csv"), val_fraction=0.25)
    sets = loaded("own")
    assert summary == {
        "train": {"attack": 13, "calm": 13},
        "val": {"attack": 5, "calm": 5},
        "test": {"attack": 2, "calm": 2},
    }
    rows = torch.tensor([[float(i), float(i * 37 % 101)] for i in range(40)])
    together = torch.cat([part.x for part in sets.values()])
    assert torch.equal(together[together[:, 0].argsort()], rows)
    with open("own/samples.csv") as file:
        names = {row["name"]: row for row in csv.DictReader(file)}
    for name, part in sets.items():
        for key, x, y in zip(part.keys, part.x, part.y, strict=True):
            of_file = f"line {int(x[0]) + 2}"
            assert names[key] == {"name": key, "split": name, "class": part.classes[int(y)], "from": of_file}


def test_equal_arguments_give_equal_files_and_a_changed_file_is_noticed():
    prepare("./own", Table("rows.csv"))
    before = {path: path.read_bytes() for path in Path("own").rglob("*") if path.is_file()}
    prepare("./own", Table("rows.csv"))
    shutil.rmtree("own")
    prepare("./own", Table("rows.csv"))
    assert before == {path: path.read_bytes() for path in Path("own").rglob("*") if path.is_file()}
    Path("own/ledger.jsonl").write_text("{}\n")
    Path("rows.csv").write_text("a,b,label\n1,2,calm\n" + ROWS)
    with pytest.raises(
        UserError, match=r"was prepared with source\.facts.* Move own/ledger\.jsonl into the new folder"
    ):
        prepare("./own", Table("rows.csv"))
    Path("new").mkdir()
    shutil.move("own/ledger.jsonl", "new")
    prepare("./new", Table("rows.csv"))
    assert Path("new/ledger.jsonl").read_text() == "{}\n"


def test_given_splits_are_kept_and_copies_leave_the_training_set(capsys):
    rows = ROWS.splitlines()
    for name, chosen in (("train", rows[:30] + rows[30:33]), ("val", rows[30:36]), ("test", rows[36:] + rows[30:31])):
        Path(f"{name}.csv").write_text("a,b,label\n" + "\n".join(chosen) + "\n")
    prepare("./own", Table("train.csv"), Table("val.csv"), Table("test.csv"))
    found = {name: sorted(part.x[:, 0].tolist()) for name, part in loaded("own").items()}
    assert found == {"train": list(range(30)), "val": list(range(31, 36)), "test": [30, *range(36, 40)]}
    said = capsys.readouterr().out
    assert "4 exact copies" in said and "another target" not in said
    assert json.loads(Path("own/prepare.json").read_text())["samples"] == {"found": 44, "copies_left_out": 4}


def test_copies_with_another_target_are_counted(capsys):
    Path("rows.csv").write_text(f"a,b,label\n{ROWS}3,10,attack\n0,0,attack\n")
    prepare("./own", Table("rows.csv"))
    assert "2 exact copies of other samples. 1 of them have another target" in capsys.readouterr().out


def test_names_of_classes_are_those_on_which_the_parties_agreed():
    Path("classes.csv").write_text("class,shared\nattack,angriff\ncalm,\n")
    assert set(prepare("./own", Table("rows.csv"), classes="classes.csv")["train"]) == {"angriff"}
    Path("classes.csv").write_text("class,shared\nattack,ruhe\ncalm,ruhe\n")
    with pytest.raises(UserError, match=r"prepared with classes\.attack angriff, and now it is ruhe"):
        prepare("./own", Table("rows.csv"), classes="classes.csv")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"source": None}, "source is missing"),
        ({"val_fraction": 1.0}, "val_fraction is 1.0"),
        ({"val_fraction": 0.6, "test_fraction": 0.5}, r"val_fraction \+ test_fraction is 1.1"),
        ({"val": Digits(), "val_fraction": 0.1}, "val_fraction is 0.1, but val gives the samples"),
        ({"val": SklearnTable("iris")}, "val holds inputs table, but the source image"),
        ({"classes": "none.csv"}, "no such file"),
        ({"val_fraction": 0.0001}, "no class can spare one for val"),
        ({"seed": -1}, "seed is -1"),
        ({"source": None, "verify": True}, "was not written by prepare"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing(place, arguments, words):
    with pytest.raises(UserError, match=words) as error:
        prepare("./deep/own", **{"source": Digits(), **arguments})
    assert "\n" not in str(error.value) and sorted(path.name for path in place.iterdir()) == ["rows.csv"]


def test_other_columns_shapes_and_classes_of_a_given_split_are_named():
    Path("other.csv").write_text("a,c,label\n1,2,calm\n")
    with pytest.raises(UserError, match=r"val holds the columns \('a', 'c'\), but the source \('a', 'b'\)"):
        prepare("./own", Table("rows.csv"), Table("other.csv"))
    Path("other.csv").write_text("a,b,label\n1,2.5,quiet\n")
    with pytest.raises(UserError, match=r"test holds the class 'quiet', of which the source has no sample"):
        prepare("./own", Table("rows.csv"), test=Table("other.csv"))
    np.savez("small.npz", x=np.zeros((4, 6, 6), np.uint8), y=np.arange(4))
    with pytest.raises(UserError, match=r"val holds inputs of the shape \(1, 6, 6\), but the source \(1, 8, 8\)"):
        prepare("./own", Digits(), Arrays("small.npz"))


def test_a_label_per_sample_is_refused():
    np.savez("d.npz", x=load_digits().data[:500], y=np.arange(500))
    with pytest.raises(UserError, match=r"500 samples in 500 classes, of which no class can spare one for val"):
        prepare("./own", Arrays("d.npz"))


@pytest.mark.parametrize("argument", ["division", "planting", "noise"])
def test_the_former_command_is_told_of_divide(argument, capsys):
    value = {"division": '{"train": 20}', "planting": "ScarceClasses", "noise": '{"labels": 0.1}'}[argument]
    assert main(["prepare", "--root", "own", "--source", "Digits", f"--{argument}", value]) == 2
    said = capsys.readouterr().err
    assert f"{argument} is not an argument of prepare" in said and "`lit-valuation divide`" in said


@pytest.mark.parametrize("former", ["valuation/prepare/digits.yaml", "valuation/prepare/table.yaml"])
def test_a_former_config_is_found_and_told_of_divide(former, capsys):
    assert former in MOVED_CONFIGS
    assert main(["prepare", "--config", f"configs/{former}"]) == 2
    assert "`lit-valuation divide`" in capsys.readouterr().err


def test_one_partys_and_several_parties_data_are_told_apart(capsys):
    prepare("./own", Table("rows.csv"))
    division = '{"train": 8, "val": 4, "test": 4, "evaluation_useful": 0, "owners": {"a": {"samples": 8}}}'
    source = ["--source", "Table", "--source.path", "rows.csv"]
    assert main(["divide", "--root", "./all", *source, "--division", division]) == 0
    for line, words in (
        (["divide", "--root", "./own", "--verify", "true"], "was not written by divide"),
        (["prepare", "--root", "./all", "--verify", "true"], "lit-valuation divide"),
        (["prepare", "--root", "./all", *source], "wrote for several parties"),
    ):
        assert main(line) == 2 and words in capsys.readouterr().err, line
    assert OwnersDataModule("own").folder == Path("own") and OwnersDataModule("all").folder == Path("all/trainer")
    with pytest.raises(UserError, match="holds the data of one party; leave `party` out"):
        OwnersDataModule("own", party="a")
