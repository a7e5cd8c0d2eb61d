"""Sources give what their files hold, and name file and line where they cannot."""

import gzip
import struct

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine

from lit_core.errors import UserError
from lit_valuation.sources import (
    Digits,
    FashionMNIST,
    HuggingFaceSamples,
    ImageFolder,
    LetterRecognition,
    Satellite,
    ShardFolder,
    Shuttle,
    SklearnTable,
    Table,
)
from lit_valuation.sources.fashion_mnist import read_idx
from lit_valuation.sources.newsgroups import read_tab


def test_digits_are_scikit_learns():
    data, samples = load_digits(), Digits().samples()
    np.testing.assert_allclose(samples.inputs()[:, 0].numpy() * 255 / 15, data.images, atol=1e-5)
    assert [int(samples.classes[c]) for c in samples.y.tolist()] == data.target.tolist()


@pytest.mark.parametrize(
    ("name", "load"), [("breast_cancer", load_breast_cancer), ("wine", load_wine), ("iris", load_iris)]
)
def test_tables_are_scikit_learns(name, load):
    source, data = SklearnTable(name), load()
    samples = source.samples()
    np.testing.assert_allclose(samples.x.numpy(), data.data, rtol=1e-6)
    assert [samples.classes[c] for c in samples.y.tolist()] == data.target_names[data.target].tolist()
    assert list(source.columns) == list(data.feature_names) and source.facts()["scikit-learn"]


def iris_frame():
    data = load_iris(as_frame=True)
    frame = data.frame.rename(columns={"target": "kind"})
    frame["kind"] = data.target_names[frame["kind"]]
    frame["garden"] = ["north" if row % 3 else "south" for row in range(len(frame))]
    return frame


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_tables_of_the_user_are_read(tmp_path, kind):
    frame, path = iris_frame(), tmp_path / f"iris.{kind}"
    frame.to_csv(path, index=False) if kind == "csv" else frame.to_parquet(path)
    source = Table(str(path), "mine", "kind", group="garden")
    samples = source.samples()
    np.testing.assert_allclose(samples.x.numpy(), frame.iloc[:, :4].to_numpy(), rtol=1e-6)
    assert [samples.classes[c] for c in samples.y.tolist()] == frame["kind"].tolist()
    assert list(samples.groups) == frame["garden"].tolist() and source.columns == tuple(frame.columns[:4])
    two = Table(str(path), "mine", "kind", columns=["petal width (cm)", "sepal width (cm)"]).samples()
    np.testing.assert_allclose(two.x.numpy(), frame[["petal width (cm)", "sepal width (cm)"]].to_numpy(), rtol=1e-6)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("a,b,labl\n1,2,x\n", ["no column label", 'Did you mean "labl"?']),
        ("a,label\n1,x\ntwo,y\n", ["line 3", "column a", "'two'"]),
        ("a,label\n1,x\n,y\n", ["line 3", "column a", "''"]),
        ("a,label\n1,x\nnan,y\n", ["line 3", "column a", "finite"]),
        ("a,label\n1,x\n2,\n", ["line 3", "column label", "empty"]),
        ('a,label\n1,"x\ny"\n2\n', ["line 4", "1 cells", "2"]),
        ("a,a,label\n1,2,x\n", ["line 1 must name each column once"]),
        ("label\nx\n", ["no columns except label"]),
        ("a,label\n", ["no rows"]),
        ("", ["line 1 must name each column once"]),
        ('a,label\n1,"x\n', ["line 2 is not valid CSV"]),
    ],
)
def test_a_bad_csv_is_named_with_line_and_column(tmp_path, lines, words):
    path = tmp_path / "rows.csv"
    path.write_text(lines)
    with pytest.raises(UserError) as error:
        Table(str(path), "mine", "label").samples()
    assert all(word in str(error.value) for word in [str(path), *words]), error.value
    assert "\n" not in str(error.value)


def test_a_bad_parquet_is_named_with_row_and_column(tmp_path):
    path = tmp_path / "rows.parquet"
    pd.DataFrame({"a": [1.0, None], "b": ["x", "y"], "label": ["p", "q"]}).to_parquet(path)
    with pytest.raises(UserError, match=r"row 1, column b: 'x'"):
        Table(str(path), "mine", "label").samples()
    with pytest.raises(UserError, match=r"row 2, column a"):
        Table(str(path), "mine", "label", columns=["a"]).samples()
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match="not a complete Parquet"):
        Table(str(path), "mine", "label").samples()


def test_a_missing_or_strange_table_is_refused_at_once(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        Table(str(tmp_path / "a.csv"), "mine", "label")
    (tmp_path / "a.xls").write_text("x")
    with pytest.raises(UserError, match="must end in"):
        Table(str(tmp_path / "a.xls"), "mine", "label")
    (tmp_path / "a.csv").write_text("x")
    with pytest.raises(UserError, match="letters, digits"):
        Table(str(tmp_path / "a.csv"), "../mine", "label")
    with pytest.raises(UserError, match="separator of the source mine is '::'"):
        Table(str(tmp_path / "a.csv"), "mine", "label", separator="::")


@pytest.fixture
def pictures(tmp_path):
    """Digits as PNG files by class and group."""
    data = load_digits()
    for place in range(12):
        folder = tmp_path / "pictures" / str(data.target[place]) / ("left" if place % 2 else "right")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((data.images[place] * 15).astype(np.uint8)).save(folder / f"some.thing {place:02d}.png")
    return tmp_path / "pictures"


def test_pictures_are_read_by_class_and_group(pictures):
    samples = ImageFolder(str(pictures), "mine", size=8, channels=1, groups=True).samples()
    data = load_digits()
    found = {
        bytes(x.numpy().tobytes()): (samples.classes[int(y)], g)
        for x, y, g in zip(samples.x, samples.y, samples.groups, strict=True)
    }
    for place in range(12):
        pixels = (data.images[place] * 15).astype(np.uint8).tobytes()
        assert found[pixels] == (str(data.target[place]), "left" if place % 2 else "right")
    colour = ImageFolder(str(pictures), "mine", size=20).samples()
    assert colour.x.shape == (12, 3, 20, 20) and colour.groups is None
    assert all("." not in key and " " not in key for key in colour.keys)


def test_bad_folders_and_pictures_are_named(pictures, tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        ImageFolder(str(tmp_path / "none"), "mine")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="has no folders"):
        ImageFolder(str(tmp_path / "empty"), "mine").samples()
    (pictures / "ten").mkdir()
    with pytest.raises(UserError, match="ten has no images"):
        ImageFolder(str(pictures), "mine").samples()
    (pictures / "ten" / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nnot really")
    with pytest.raises(UserError, match=r"1 of 13 images cannot be used: \S+a\.png \("):
        ImageFolder(str(pictures), "mine").samples()
    with pytest.raises(UserError, match=r"a\.png is not in the folder of a group"):
        ImageFolder(str(pictures), "mine", groups=True).samples()


def test_a_folder_without_shards_is_refused(tmp_path):
    with pytest.raises(UserError, match="no labelled shard set"):
        ShardFolder(str(tmp_path), "mine")


def write_idx(path, array):
    content = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(content, mtime=0))


def test_idx_files_are_read_and_damage_is_named(tmp_path):
    images = (load_digits().images[:7] * 15).astype(np.uint8)
    write_idx(tmp_path / "a.gz", images)
    np.testing.assert_array_equal(read_idx(tmp_path / "a.gz"), images)
    content = gzip.decompress((tmp_path / "a.gz").read_bytes())
    for name, damaged in (("b", content[:-3]), ("c", b"\1" + content[1:]), ("d", content[:2])):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(UserError, match=f"{name} is not a complete IDX file"):
            read_idx(tmp_path / name)


def test_fashion_mnist_is_read_from_a_folder(tmp_path):
    folder = tmp_path / "usr/share/datasets/fashion-mnist"
    folder.mkdir(parents=True)
    data = load_digits()
    for part, rows in (("train", slice(0, 9)), ("t10k", slice(9, 12))):
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", (data.images[rows] * 15).astype(np.uint8))
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", data.target[rows].astype(np.uint8))
    samples = FashionMNIST(from_folder=str(tmp_path)).samples()
    assert samples.y.tolist() == data.target[:12].tolist() and samples.x.shape == (12, 1, 8, 8)
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(UserError, match=r"t10k-labels-idx1-ubyte\.gz of the Debian package dataset-fashion-mnist"):
        FashionMNIST(from_folder=str(tmp_path)).samples()


def test_orange_tables_are_read(tmp_path):
    path = tmp_path / "a.tab"
    path.write_text("Category\tText\nd\tstring\nclass\t\n\nsci.med\tone two\nsci.med\t \nrec.autos\tthree\n")
    assert list(read_tab(path)) == [("sci.med", "one two"), ("rec.autos", "three")]
    path.write_text("Category\tText\nd\tstring\nclass\t\nsci.med\n")
    with pytest.raises(UserError, match="line 4"):
        list(read_tab(path))


def test_hugging_face_reads_local_files(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    frame, path = iris_frame(), tmp_path / "iris.csv"
    frame.to_csv(path, index=False)
    columns = list(frame.columns[:4])
    given = {"path": "csv", "name": "hub", "data_files": [str(path)], "label": "kind"}
    samples = HuggingFaceSamples(**given, columns=columns, group="garden").samples()
    np.testing.assert_allclose(samples.x.numpy(), frame[columns].to_numpy(), rtol=1e-6)
    assert list(samples.groups) == frame["garden"].tolist()
    first = HuggingFaceSamples(**given, columns=columns, max_samples=60).samples()
    assert torch.equal(first.x, samples.x[:60]) and first.classes == ("setosa", "versicolor")
    with pytest.raises(UserError, match=r'no column petal.*Did you mean "petal'):
        HuggingFaceSamples(**given, columns=["petal width"]).samples()
    with pytest.raises(UserError, match=r"garden.*not a finite float32"):
        HuggingFaceSamples(**given, columns=["garden"]).samples()
    for wrong in ({}, {"image": "a", "text": "b"}, {"text": "b"}, {"columns": columns, "max_samples": 0}):
        with pytest.raises(UserError):
            HuggingFaceSamples(**given, **wrong)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "shape", "counts"),
    [
        (FashionMNIST, (70_000, 1, 28, 28), [7000] * 10),
        (LetterRecognition, (20_000, 16), None),
        (Satellite, (6_435, 36), [703, 626, 1358, 1533, 707, 1508]),
        (Shuttle, (58_000, 9), None),
    ],
)
def test_what_is_fetched_has_its_size(source, shape, counts):
    samples = source().samples()
    assert samples.x.shape == shape
    found = samples.y.bincount(minlength=len(samples.classes)).tolist()
    assert counts is None or sorted(found) == sorted(counts)


def test_a_table_with_large_values_is_noted_with_its_column(tmp_path, capsys):
    for largest, noted in ((-2_501.5, True), (1.5, False)):
        path = tmp_path / "rows.csv"
        path.write_text(f"a,area,label\n0.5,{largest},x\n0.25,1,y\n")
        Table(str(path), "mine", "label").samples()
        said = capsys.readouterr().err
        assert ("up to 2,501.5 in the column area" in said) == noted and bool(said) == noted
