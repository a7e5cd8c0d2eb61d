"""Targets beside images, in webdataset shards of others and in Hugging Face datasets; what is wrong is named."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lit_core.errors import UserError
from lit_valuation.commands.prepare import prepare
from lit_valuation.data.labelled_sets import LabelledSet
from lit_valuation.sources import HuggingFaceSamples, ImageFolder, WebDataset, image_folder

N = 10
AGES = [20 + 1.5 * i for i in range(N)]
LABELS = [[i % 2, int(i % 3 == 0)] for i in range(N)]
NAMES = [[name for name, has in zip(("even", "third"), row, strict=True) if has] for row in LABELS]


def pixels(index):
    return np.full((4, 4), 20 * index, dtype=np.uint8)


def png(index):
    buffer = io.BytesIO()
    Image.fromarray(pixels(index)).save(buffer, "PNG")
    return buffer.getvalue()


def rows(**changed):
    content = [
        {"file_name": f"sub/{i}.png", "age": AGES[i], "even": LABELS[i][0], "third": LABELS[i][1]} for i in range(N)
    ]
    content[2] |= changed
    return content


def table(content, path):
    path = Path(path)
    if path.suffix == ".csv":
        lines = [",".join(content[0]), *(",".join(map(str, row.values())) for row in content)]
        path.write_text("\n".join(lines) + "\n")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in content))
    else:
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pytest.importorskip("pyarrow").Table.from_pylist(content), path)
    return str(path)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LITSHIFT_DATA", str(tmp_path / "data"))
    (tmp_path / "faces/sub").mkdir(parents=True)
    for i in range(N):
        (tmp_path / f"faces/sub/{i}.png").write_bytes(png(i))


def folder(**given):
    return ImageFolder("faces", size=4, channels=1, **given)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_table_beside_images_gives_their_values(kind):
    order = [*range(N - 1, -1, -1)]  # not that of the files
    source = folder(table=table([rows()[i] for i in order], f"ages.{kind}"), values=["age"])
    samples = source.samples()
    assert samples.target == "values" and samples.classes == ("age",)
    assert samples.y.flatten().tolist() == AGES[::-1] and source.places[0] == f"sub/{N - 1}.png"
    np.testing.assert_array_equal(samples.x[:, 0].numpy(), np.stack([pixels(i) for i in order]))
    facts = source.facts()
    table(rows(), f"ages.{kind}")
    assert folder(table=f"ages.{kind}", values=["age"]).facts() != facts
    prepare("./own", source, val_fraction=0.2)
    stored = LabelledSet("own/train").load()
    assert {int(x.max()): float(y) for x, y in zip(stored.x, stored.y, strict=True)}.items() <= {
        20 * i: age for i, age in enumerate(AGES)
    }.items()


def test_hugging_face_s_metadata_is_found_and_reads_as_datasets_reads_it():
    datasets = pytest.importorskip("datasets")
    table([{**row, "tags": tags} for row, tags in zip(rows(), NAMES, strict=True)], "faces/metadata.jsonl")
    ours = folder(values=["age"]).samples()
    given = {"path": "imagefolder", "data_files": ["faces/**"], "image": "image", "size": 4, "channels": 1}
    for source, want in (({"values": ["age"]}, "values"), ({"labels": ["third", "even"]}, "labels")):
        theirs = HuggingFaceSamples(**given, **source).samples()
        assert theirs.target == want and set(theirs.classes) == set(next(iter(source.values())))
    theirs = HuggingFaceSamples(**given, values=["age"]).samples()
    assert torch.equal(theirs.x, ours.x) and torch.equal(theirs.y, ours.y)
    lists = folder(label="tags").samples()
    assert lists.classes == ("even", "third") and lists.y.int().tolist() == LABELS
    assert torch.equal(HuggingFaceSamples(**given, label="tags").samples().y, lists.y)
    assert datasets is not None


def test_names_of_classes_in_lists_of_a_dataset_are_its_own():
    datasets = pytest.importorskip("datasets")
    names = datasets.ClassLabel(names=["even", "third"])
    features = {"a": datasets.Value("float32"), "tags": [names], "age": datasets.Value("float64")}
    content = {"a": AGES, "tags": [[["even", "third"].index(name) for name in row] for row in NAMES], "age": [*AGES]}
    datasets.Dataset.from_dict(content, features=datasets.Features(features)).save_to_disk("saved")
    samples = HuggingFaceSamples("saved", columns=["a"], label="tags").samples()
    assert samples.classes == ("even", "third") and samples.y.int().tolist() == LABELS
    content["age"][3] = float("nan")
    datasets.Dataset.from_dict(content, features=datasets.Features(features)).save_to_disk("nan")
    with pytest.raises(UserError, match=r"row 3, column age: nan is not a finite float32"):
        HuggingFaceSamples("nan", columns=["a"], values=["age"]).samples()
    with pytest.raises(UserError, match="no column size"):
        HuggingFaceSamples("saved", columns=["a"], values=["size"]).samples()
    with pytest.raises(UserError, match=r"row 0, column tags: \[.*\] is not a finite float32"):
        HuggingFaceSamples("saved", columns=["a"], values=["tags"]).samples()


def test_folders_without_a_table_are_classes_and_a_table_that_is_not_read_is_named(capsys):
    table(rows(), "faces/metadata.csv")
    assert folder().samples().classes == ("sub",)
    assert "metadata.csv is not read, since folders name the classes" in capsys.readouterr().err
    assert folder(label="even").samples().classes == ("0", "1")


def test_images_without_a_row_are_left_out_and_counted(capsys):
    table(rows()[:7], "some.csv")
    assert len(folder(table="some.csv", values=["age"]).samples()) == 7
    assert "Left out as not in some.csv: 3 of the images, such as sub/7.png" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "given", "reason"),
    [
        ({"age": "nan"}, {}, r"t.csv, line 4, column age: 'nan' is not a finite float32"),
        ({"age": ""}, {}, r"line 4, column age: '' is not"),
        ({"age": "old"}, {}, r"line 4, column age: 'old' is not"),
        ({"file_name": "sub/99.png"}, {}, r"1 of 10 images .* line 4 \(there is no file sub/99.png\)"),
        ({"file_name": "sub/2"}, {}, r"no file sub/2, but sub/2.png; write its ending"),
        ({"file_name": "./sub/1.png"}, {}, r"line 4 names sub/1.png, as line 3 does; keep one row"),
        ({"file_name": "../secret.png"}, {}, r"line 4, column file_name: '../secret.png' is not inside the folder"),
        ({"file_name": "/etc/passwd"}, {}, r"is not inside the folder"),
        ({"file_name": " "}, {}, r"line 4, column file_name: ' ' does not name a file"),
        ({}, {"values": ["weight"]}, r"no column weight"),
        ({}, {"values": None, "labels": ["even", "age"]}, r"line 2, column age: '20.0' is not 0 or 1"),
        ({}, {"file": "path"}, r"no column path"),
        ({}, {"table": "none.csv"}, r"table of the source faces is none.csv, but there is no such file"),
        ({}, {"table": None}, r"age of the source faces is to be a column, but there is no table"),
        ({}, {"groups": True}, r"groups is true, but a table"),
        ({}, {"labels": ["even"]}, r"one kind of target"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(changed, given, reason):
    arguments = {"table": table(rows(**changed), "t.csv"), "values": ["age"], **given}
    with pytest.raises(UserError, match=reason) as error:
        folder(**arguments).samples()
    assert "\n" not in str(error.value)


def test_a_link_out_of_the_folder_is_not_followed():
    Path("secret.png").write_bytes(png(1))
    Path("faces/link.png").symlink_to("../secret.png")
    with pytest.raises(UserError, match=r"link.png is a link out of faces"):
        folder(table=table(rows(file_name="link.png"), "t.csv"), values=["age"]).samples()


def shard(members):
    with tarfile.open("s.tar", "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return "s.tar"


def samples_of(ending, contents, **given):
    members = {}
    for i, content in enumerate(contents):
        members |= {f"{i}.png": png(i), f"{i}.{ending}": content.encode()}
    return WebDataset(shard(members), size=4, channels=1, label=ending, **given).samples()


@pytest.mark.parametrize("of", ["folder", "shard", "dataset"])
def test_images_that_memory_cannot_hold_are_refused_before_one_is_scaled(of, monkeypatch):
    monkeypatch.setattr(image_folder, "as_square", None)
    members = {f"{i}.{ending}": content for i in range(N) for ending, content in (("png", png(i)), ("cls", b"a"))}
    if of == "dataset":
        pytest.importorskip("datasets")
    source = {
        "folder": lambda: ImageFolder("faces", size=10**6, table=table(rows(), "t.csv"), values=["age"]),
        "shard": lambda: WebDataset(shard(members), size=10**6),
        "dataset": lambda: HuggingFaceSamples(
            **{"path": "imagefolder", "data_files": ["faces/**"], "image": "image"},
            **{"size": 10**6, "values": ["age"]},
        ),
    }[of]
    table(rows(), "faces/metadata.csv")
    with pytest.raises(UserError, match=r"size is 1000000, so 10? images need .* GiB of memory, but this machine has"):
        source().samples()


def test_values_and_labels_of_shards_are_read():
    content = [json.dumps({**row, "tags": tags}) for row, tags in zip(rows(), NAMES, strict=True)]
    values = samples_of("json", content, values=["age"])
    assert values.target == "values" and values.y.flatten().tolist() == AGES
    labels = samples_of("json", content, labels=["even", "third"])
    assert labels.target == "labels" and labels.y.int().tolist() == LABELS
    lists = samples_of("json", content, field="tags")
    assert lists.classes == ("even", "third") and torch.equal(lists.y, labels.y)
    texts = samples_of("age", [f" {age}\n" for age in AGES], values=["age"])
    assert torch.equal(texts.y, values.y) and torch.equal(texts.x, values.x)


@pytest.mark.parametrize(
    ("ending", "content", "given", "reason"),
    [
        ("json", '{"age": NaN}', {}, r"s.tar, 0, json, column age: nan is not a finite float32"),
        ("json", '{"age": "x"}', {}, r"column age: 'x' is not"),
        ("json", '{"age": null}', {}, r"column age: None is not"),
        ("json", '{"size": 1}', {}, r"no column age"),
        ("json", "[1]", {}, r"is a list"),
        ("json", '{"age": 2}', {"values": None, "labels": ["age"]}, r"column age: 2 is not 0 or 1"),
        ("json", '{"age": {}}', {"values": None, "field": "age"}, r"the cell is dict"),
        ("txt", "nan", {}, r"s.tar, 0, txt, column age: 'nan' is not"),
        ("txt", "1", {"values": ["age", "size"]}, r"label is txt, whose members hold one text"),
        ("json", "{}", {"field": "age"}, r"give one of them"),
    ],
)
def test_a_bad_target_of_a_shard_is_named(ending, content, given, reason):
    with pytest.raises(UserError, match=reason) as error:
        samples_of(ending, [content], **{"values": ["age"], **given})
    assert "\n" not in str(error.value)
