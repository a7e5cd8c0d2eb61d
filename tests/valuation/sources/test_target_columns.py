"""Targets in a user's files: columns of numbers, columns of 0 and 1, and lists of labels; what is wrong is named."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lit_core.errors import UserError
from lit_valuation.commands.divide import divide
from lit_valuation.commands.prepare import prepare
from lit_valuation.data.labelled_sets import LabelledSet
from lit_valuation.data.module import OwnersDataModule
from lit_valuation.encoders import Identity
from lit_valuation.samples import target_statistics
from lit_valuation.sources import Arrays, Table, Texts

N = 20
X = np.arange(2 * N, dtype=np.float32).reshape(N, 2) / 40
PRICE = [100.5 + 3 * i for i in range(N)]
LABELS = [[float(i % 2), float(i % 3 == 0)] for i in range(N)]


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LITSHIFT_DATA", str(tmp_path / "data"))


def rows():
    return [
        {"a": float(x[0]), "b": float(x[1]), "price": price, "even": labels[0], "third": labels[1]}
        for x, price, labels in zip(X, PRICE, LABELS, strict=True)
    ]


def write(kind, content, name="d"):
    path = Path(f"{name}.{kind}")
    if kind == "csv":
        lines = [",".join(content[0]), *(",".join(map(str, row.values())) for row in content)]
        path.write_text("\n".join(lines) + "\n")
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in content))
    else:
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pytest.importorskip("pyarrow").Table.from_pylist(content), path)
    return str(path)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_numbers_are_read_as_they_are_and_come_back_from_the_shards(kind):
    source = Table(write(kind, rows()), values=["price"], columns=["a", "b"])
    samples = source.samples()
    assert samples.target == "values" and samples.classes == ("price",) and source.columns == ("a", "b")
    assert samples.y.flatten().tolist() == PRICE and source.places[1] in ("line 3", "line 2", "row 2")
    summary = prepare("./own", source, val_fraction=0.25)
    assert summary == {"train": {"price": 13}, "val": {"price": 5}, "test": {"price": 2}}
    parts = [LabelledSet(f"own/{split}").load() for split in ("train", "val", "test")]
    together = {float(x[0]): float(y) for part in parts for x, y in zip(part.x, part.y, strict=True)}
    assert together == {float(x[0]): price for x, price in zip(X, PRICE, strict=True)}
    assert "price=100.5" in Path("own/samples.csv").read_text()


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_columns_of_0_and_1_are_labels(kind):
    content = [{**row, "never": 0} for row in rows()]
    samples = Table(write(kind, content), labels=["third", "never", "even"], columns=["a", "b"]).samples()
    assert samples.target == "labels" and samples.classes == ("third", "never", "even")
    assert samples.y.tolist() == [[third, 0, even] for even, third in LABELS]


def test_lists_are_labels():
    content = [{"a": 1.0 * i, "label": [["x", "y"], [], ["y"]][i % 3]} for i in range(6)]
    samples = Table(write("jsonl", content)).samples()
    assert samples.classes == ("x", "y") and samples.y.tolist() == [[1.0, 1.0], [0.0, 0.0], [0.0, 1.0]] * 2


def test_texts_and_arrays_have_them_too():
    class Lengths(Identity):
        def encode(self, x, batch_size=64):
            return torch.tensor([[len(text), 1.0] for text in x])

    texts = Texts(
        write("jsonl", [{"text": "t" * (i + 1), "stars": i / 2} for i in range(4)]), Lengths(), values=["stars"]
    )
    assert texts.samples().y.flatten().tolist() == [0, 0.5, 1, 1.5]
    np.savez("d.npz", x=X, y=np.array(LABELS))
    of_arrays = Arrays("d.npz", target="labels", names=["even", "third"]).samples()
    assert of_arrays.classes == ("even", "third") and of_arrays.y.tolist() == LABELS
    np.savez("one.npz", x=X, y=np.array(PRICE))
    assert Arrays("one.npz", target="values").samples().classes == ("y",)


def test_a_data_module_gives_targets_and_the_statistics_of_its_training_set():
    prepare("./own", Table(write("csv", rows()), values=["price", "a"], columns=["b"]), test_fraction=0)
    data = OwnersDataModule("./own", batch_size=4)
    assert data.target == "values" and data.classes == ("price", "a")
    mean, scale = data.target_statistics()
    y = LabelledSet("own/train").load().y.double()
    torch.testing.assert_close(mean, y.mean(0))
    torch.testing.assert_close(scale, y.std(0, correction=0))


def test_labels_are_renamed_and_joined_by_a_class_map_and_target_columns_are_not_joined():
    Path("map.csv").write_text("class,shared\neven,e\nthird,e\nrare,r\n")
    prepare("./own", Table(write("csv", rows()), labels=["even", "third"], columns=["a", "b"]), classes="map.csv")
    joined = LabelledSet("own/train").load()
    assert joined.classes == ("e", "r") and not joined.y[:, 1].any()
    of_row = {float(x[0]): max(labels) for x, labels in zip(X, LABELS, strict=True)}
    assert [of_row[float(x[0])] for x in joined.x] == joined.y[:, 0].tolist()
    Path("map.csv").write_text("class,shared\neven,e\nthird,e\n")
    with pytest.raises(UserError, match="target columns even, third the one name 'e'"):
        prepare("./other", Table("d.csv", values=["even", "third"], columns=["a", "b"]), classes="map.csv")


def broken(**cells):
    content = rows()
    content[2] |= cells
    return write("csv", content)


def multi_hot(k):
    """Rows whose labels are a 0 or 1 for each of k labels."""
    return [{"a": 1.0 + i, "label": [i % 2, 1 - i % 2, *[0] * (k - 2)]} for i in range(4)]


def outlier():
    """Rows with one price beside which the others vanish."""
    return [{**row, "price": 1e30 if i == 7 else row["price"]} for i, row in enumerate(rows())]


def times():
    """Rows whose prices are seconds since 1970."""
    return [row | {"price": 1_700_000_000 + 10 * i} for i, row in enumerate(rows())]


@pytest.mark.parametrize(
    ("read", "reason"),
    [
        (lambda: Table(broken(price="nan"), values=["price"]), r"d.csv, line 4, column price: 'nan' is not a finite"),
        (lambda: Table(broken(price=""), values=["price"]), r"d.csv, line 4, column price: '' is not a finite"),
        (lambda: Table(broken(price="1e99"), values=["price"]), r"line 4, column price: '1e99' is not a finite"),
        (lambda: Table(broken(even="0.5"), labels=["even"]), r"line 4, column even: '0.5' is not 0 or 1"),
        (lambda: Table(broken(even="yes"), labels=["even"]), r"line 4, column even: 'yes' is not 0 or 1, which tell"),
        (lambda: Table(broken(), values=["cost"]), r"no column cost"),
        (lambda: Table(broken(), values=["price"], labels=["even"]), r"one kind of target"),
        (lambda: Table(broken(), values=["price", "price"]), r"different columns"),
        (lambda: Table(broken(price="1_5"), values=["price"]), r"line 4, column price: '1_5' is not a finite"),
        (lambda: Table(broken(), values=["price"], columns=["a", "price"]), r"price is named as an input and as a t"),
        (lambda: Table(broken(), labels=["even"], columns=["even", "b"]), r"even is named as an input and as a target"),
        (lambda: Texts(broken(), Identity(), text="a", label="a"), r"a is named as an input and as a target"),
        (lambda: Table(broken(), values=["price"], columns=["a", "a"]), r"a, a, but must name different columns"),
        (lambda: Table(write("jsonl", [{"a": 1, "label": 1}, {"a": 2, "label": 1, "b": 3}])), r"d.jsonl, line 2 has b"),
        (lambda: Table(broken(price=1.7e9), values=["price"]), None),
        (lambda: Table(write("csv", times()), values=["price"]), r"price of .* float32 cannot tell apart; subtract"),
        (lambda: Table(broken(), label="price", columns=["a"]), None),
        (lambda: Table(write("jsonl", [{"a": 1, "label": "x"}, {"a": 2, "label": ["x"]}])), r"lists and single names"),
        (lambda: Table(write("jsonl", [{"a": 1, "label": ["x", "x"]}])), r"names a label twice"),
        (
            lambda: Table(write("jsonl", multi_hot(2))),
            r"source d holds lists such as \[0, 1\].*in `labels`",
        ),
        (
            lambda: Table(write("jsonl", multi_hot(3))),
            r"column label holds lists such as \[0, 1, 0\].*`labels`",
        ),
        (lambda: Table(write("csv", outlier()), values=["price"]), r"price has values such as 1e\+30, beside which"),
        (lambda: Table(write("jsonl", [{"a": 1, "label": ["x", ""]}])), r"d.jsonl, line 1.*empty"),
    ],
)
def test_what_is_wrong_is_named_by_file_and_line(read, reason):
    if reason is None:  # few numbers may be names of classes
        assert len(read().samples()) == N
        return
    with pytest.raises(UserError, match=reason):
        read().samples()


@pytest.mark.parametrize(
    ("y", "given", "reason"),
    [
        (np.array([[1.0], [np.nan]]), {"target": "values"}, r"d.npz, index 1: nan is not a finite float32"),
        (np.array([0, 2]), {"target": "labels"}, r"index 1: 2 is not 0 or 1"),
        (np.array(["a", "b"]), {"target": "values"}, r"reshape"),
        (np.array([1.0, 2.0]), {"target": "values", "names": ["a", "b"]}, r"2 names, but d.npz has 1 columns"),
        (np.array([1.0, 2.0]), {"names": ["a"]}, r"each once"),
    ],
)
def test_wrong_targets_in_arrays_are_named_by_index(y, given, reason):
    np.savez("d.npz", x=X[:2], y=y)
    with pytest.raises(UserError, match=reason):
        Arrays("d.npz", **given).samples()


def test_divide_takes_classes_only():
    with pytest.raises(UserError, match="have values, but divide goes by classes"):
        divide("./all", Table(write("csv", rows()), values=["price"], columns=["a", "b"]))


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_class_has_one_name_however_it_is_stored(kind, capsys):
    same = [1, 1.0, "1", "M\u00fcll", "Mu\u0308ll"] if kind == "jsonl" else ["M\u00fcll", "Mu\u0308ll", "1", "1", "1"]
    names = [*same, *same, "1.0", "m\u00fcll"]
    content = [{"a": float(i), "label": name} for i, name in enumerate(names)]
    source = Table(write(kind, content))
    assert source.samples().classes == ("1", "1.0", "M\u00fcll", "m\u00fcll")
    prepare("./own", source, val_fraction=0, test_fraction=0)
    said = capsys.readouterr().err
    assert "the classes '1', '1.0' count as different" in said and "'M\u00fcll', 'm\u00fcll' count as" in said
    np.savez("d.npz", x=X[:3], y=np.array([0.0, 1.0, 0.0]))
    assert Arrays("d.npz").samples().classes == ("0", "1")
    labels = [{"a": 1, "label": ["Mu\u0308ll"]}, {"a": 2, "label": ["M\u00fcll", "b"]}]
    found = Table(write("jsonl", labels, "lists")).samples()
    assert found.classes == ("M\u00fcll", "b") and found.y.tolist() == [[1, 0], [1, 1]]


def test_an_outlier_in_data_that_are_prepared_is_refused_by_its_column():
    y = torch.tensor(PRICE)
    with pytest.raises(UserError, match=r"price has values such as -1e\+30, beside which float32"):
        target_statistics(torch.cat([y, torch.tensor([-1e30])])[:, None], ["price"])
    for fine in (y, torch.tensor([0.0, 1e30]), torch.cat([y, 1e6 + y]), 10 ** torch.linspace(-3, 3, 50)):
        target_statistics(fine[:, None], ["price"])
