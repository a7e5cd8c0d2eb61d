"""Labelled shard sets: samples come back as they were, others can read them, damage is found by name."""

import io
import json
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_breast_cancer, load_digits

from lit_core.data import write_index, write_shard
from lit_core.errors import RunFailure, UserError
from lit_valuation.data.labelled_sets import LabelledSet, write_labelled
from lit_valuation.samples import Samples

FACTS = {"source": "digits", "split": "train", "licence": "BSD", "origin": "scikit-learn"}


def digits(n=50):
    data = load_digits()
    x = torch.from_numpy((data.images[:n] * 15).astype(np.uint8)).unsqueeze(1)
    y = torch.from_numpy(data.target[:n])
    keys = tuple(f"digits-{i:06d}" for i in range(n))
    return Samples(x, y, tuple("0123456789"), keys, tuple("even" if c % 2 == 0 else "odd" for c in y.tolist()))


def table(n=30):
    data = load_breast_cancer()
    x = torch.from_numpy(data.data[:n]).float()
    return Samples(x, torch.from_numpy(data.target[:n]), ("malignant", "benign"), tuple(f"row-{i}" for i in range(n)))


def equal(left, right):
    assert torch.equal(left.x, right.x) and torch.equal(left.y, right.y) and left.x.dtype == right.x.dtype
    assert (left.classes, left.keys, left.groups) == (right.classes, right.keys, right.groups)


@pytest.mark.parametrize(
    "samples",
    [
        digits(),
        table(),
        Samples(digits(9).x.repeat(1, 3, 1, 1), digits(9).y, tuple("0123456789"), digits(9).keys),
        Samples(digits(9).inputs(), digits(9).y, tuple("0123456789"), digits(9).keys),
    ],
    ids=["grey", "table", "colour", "float image"],
)
def test_samples_come_back(tmp_path, samples):
    write_labelled(tmp_path, samples, shard_size=20, **FACTS)
    read = LabelledSet(tmp_path)
    equal(read.load(), samples)
    equal(read.load([3, 1]), samples.take([3, 1]))
    assert read.shape == tuple(samples.x.shape[1:]) and len(read) == len(samples)
    assert read.kind == ("image" if samples.x.ndim == 4 else "table")
    assert torch.equal(read[4]["x"], samples.inputs()[4]) and int(read[4]["y"]) == int(samples.y[4])
    assert int(read[4]["index"]) == 4
    assert torch.equal(read.batch([2, 5])["x"], samples.inputs()[[2, 5]])


def test_equal_samples_give_equal_bytes(tmp_path):
    for name in "ab":
        write_labelled(tmp_path / name, digits(), **FACTS)
    for file in ("000000.tar", "index.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_tar_and_pillow_read_them(tmp_path):
    samples = digits()
    write_labelled(tmp_path, samples, meta={"columns": ["a"]}, **FACTS)
    with tarfile.open(tmp_path / "000000.tar") as archive:
        pixels = np.array(Image.open(io.BytesIO(archive.extractfile("digits-000007.png").read())))
        label = json.loads(archive.extractfile("digits-000007.json").read())
    np.testing.assert_array_equal(pixels, samples.x[7, 0].numpy())
    assert label == {"label": "7", "group": "odd"}
    assert LabelledSet(tmp_path).meta["columns"] == ["a"]


def write_members(folder, members, **meta):
    entry = write_shard(folder / "000000.tar", members)
    meta = {"classes": ["0", "1"], "shape": [1, 8, 8], "input": "image"} | meta
    write_index(folder, [entry], kind="labelled", source="x", split="train", meta=meta)
    return LabelledSet(folder)


def encoded(size=(8, 8), kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(np.full(size, 77, dtype=np.uint8)).save(buffer, format=kind)
    return buffer.getvalue()


def test_jpeg_of_others_is_read(tmp_path):
    read = write_members(tmp_path, [{"__key__": "a", "jpg": encoded(kind="JPEG"), "json": {"label": "1"}}])
    assert read.load().x.shape == (1, 1, 8, 8) and int(read.load().x.float().mean()) == 77


@pytest.mark.parametrize(
    ("member", "words"),
    [
        ({"png": encoded((9, 8)), "json": {"label": "1"}}, ["(9, 8)", "(8, 8)"]),
        ({"png": encoded()[:40], "json": {"label": "1"}}, ["cannot be decoded"]),
        ({"png": encoded(kind="GIF"), "json": {"label": "1"}}, ["cannot be decoded"]),
        ({"png": encoded(), "json": {"label": "2"}}, ["'2'", "class"]),
        ({"png": encoded(), "json": {"label": "1", "group": 3}}, ["group"]),
        ({"png": encoded()}, ["None", "class"]),
        ({"json": {"label": "1"}}, ["missing"]),
        ({"npy": np.zeros(4), "json": {"label": "1"}}, ["(4,)", "(1, 8, 8)"]),
        ({"npy": np.full((1, 8, 8), np.nan), "json": {"label": "1"}}, ["finite"]),
    ],
)
def test_a_bad_sample_is_named(tmp_path, member, words):
    read = write_members(tmp_path, [{"__key__": "a", **member}])
    with pytest.raises(RunFailure) as error:
        read.load()
    assert all(word in str(error.value) for word in ["sample a", str(tmp_path), *words]), error.value


def test_a_sample_without_group_among_others_is_named(tmp_path):
    rows = [
        {"__key__": key, "png": encoded(), "json": {"label": "1", **group}}
        for key, group in (("a", {"group": "snow"}), ("b", {}))
    ]
    with pytest.raises(RunFailure, match=r"sample b.*no group"):
        write_members(tmp_path, rows).load()


def test_inputs_stored_in_two_ways_are_named(tmp_path):
    rows = [
        {"__key__": "a", "png": encoded(), "json": {"label": "1"}},
        {"__key__": "b", "npy": np.zeros((1, 8, 8), dtype=np.float32), "json": {"label": "1"}},
    ]
    with pytest.raises(RunFailure, match=r"sample b.*another way"):
        write_members(tmp_path, rows).load()


@pytest.mark.parametrize("meta", [{"classes": []}, {"classes": ["0", "0"]}, {"shape": [0]}, {"input": "sound"}])
def test_a_malformed_index_is_refused(tmp_path, meta):
    with pytest.raises(UserError, match=f'"{next(iter(meta))}" in "meta"'):
        write_members(tmp_path, [{"__key__": "a", "png": encoded(), "json": {"label": "1"}}], **meta)


def test_a_truncated_shard_is_refused_by_name(tmp_path):
    write_labelled(tmp_path, digits(), **FACTS)
    shard = tmp_path / "000000.tar"
    shard.write_bytes(shard.read_bytes()[:-512])
    with pytest.raises(UserError, match=str(shard)):
        LabelledSet(tmp_path)


def test_other_shards_and_no_samples_are_refused(tmp_path):
    write_index(tmp_path, [], kind="tokens", source="x", split="train")
    with pytest.raises(UserError, match="tokens"):
        LabelledSet(tmp_path)
    with pytest.raises(UserError, match="no samples"):
        write_labelled(tmp_path / "new", digits().take([]), **FACTS)
    assert not (tmp_path / "new").exists()
