"""Whatever is in a table: it is read as pandas reads it, or refused with one sentence."""

import csv
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lit_core.errors import UserError
from lit_valuation.cli import main
from lit_valuation.sources import Table

pa = pytest.importorskip("pyarrow")

quickly = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
CELLS = st.sampled_from(
    ["", " ", "nan", "inf", "1e39", "1e400", "1,5", "x", "0x1", "None", '"', "\0", "\ud7ff", "٣", "1_0"]
)
CELLS |= st.floats().map(repr) | st.integers().map(str) | st.text(max_size=4)
NAMES = st.lists(st.sampled_from(["a", "b", "label", "Label", ""]), min_size=1, max_size=4)
KINDS = {
    "float": st.floats(allow_nan=True, allow_infinity=True) | st.none(),
    "int": st.integers(-(2**63), 2**63 - 1) | st.none(),
    "text": st.text(max_size=3) | st.none(),
    "bool": st.booleans(),
    "bytes": st.binary(max_size=3),
    "list": st.lists(st.integers(0, 9), max_size=2),
}


def read(path):
    """Return samples, or None where there was one sentence about them."""
    try:
        samples = Table(str(path), "mine", "label").samples()
    except UserError as error:
        assert str(path) in str(error) and "\n" not in str(error), str(error)
        return None
    assert len(samples) > 0 and bool(samples.x.isfinite().all()) and samples.x.shape[1] > 0
    assert all(samples.classes) and len(samples.y) == len(samples.x)
    return samples


@quickly
@given(header=st.just(["a", "b", "label"]) | NAMES, cell=CELLS, place=st.integers(0, 3))
def test_any_csv(tmp_path, header, cell, place):
    rows = [["1", "2.5", "x"], ["-3e4", "0", "y"]]
    rows[1][place : place + 1] = [cell]  # in place of one, or one too many
    path = tmp_path / "rows.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    samples = read(path)
    if samples is not None:
        inputs = [place for place, name in enumerate(header) if name != "label"]
        expected = np.array([[float(row[place]) for place in inputs] for row in rows])
        np.testing.assert_allclose(samples.x.numpy(), expected, rtol=1e-6, atol=1e-37)


@quickly
@given(content=st.binary(max_size=60))
def test_any_bytes(tmp_path, content):
    for name in ("rows.csv", "rows.parquet"):
        path = tmp_path / name
        path.write_bytes(content)
        read(path)


@quickly
@given(data=st.data(), kinds=st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=3))
def test_any_parquet(tmp_path, data, kinds):
    from pyarrow import parquet

    size = data.draw(st.integers(0, 4))
    columns = {
        f"{kind}{place}": data.draw(st.lists(KINDS[kind], min_size=size, max_size=size))
        for place, kind in enumerate(kinds)
    }
    columns[data.draw(st.sampled_from(["label", "lable"]))] = data.draw(
        st.lists(KINDS["text"], min_size=size, max_size=size)
    )
    parquet.write_table(pa.table(columns), tmp_path / "rows.parquet")
    samples = read(tmp_path / "rows.parquet")
    if samples is not None:
        assert "label" in columns and "list" not in kinds
        assert all(math.isfinite(value) for name in columns if name[:5] == "float" for value in columns[name])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a,b\n1,2\n", "no column label"),
        ("a,label\n1,x\nten,y\n", "'ten' is not a finite float32"),
        ("a,label\n1,x\nNaN,y\n", "'NaN' is not a finite float32"),
    ],
)
def test_prepare_says_one_sentence(tmp_path, capsys, content, words):
    path = tmp_path / "rows.csv"
    path.write_text(content)
    args = [
        "--source.init_args.path",
        str(path),
        "--source.init_args.label",
        "label",
        "--source.init_args.group",
        "null",
    ]
    args += ["--root", str(tmp_path / "data")]
    assert main(["divide", "--config", "configs/valuation/divide/table.yaml", *args]) == 2
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said and not (tmp_path / "data").exists()
