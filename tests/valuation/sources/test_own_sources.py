"""Arrays, texts, shards of others and saved datasets give what NumPy, the encoder and `webdataset` would read."""

import io
import json
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from lit_core.errors import UserError
from lit_valuation.encoders import Encoder
from lit_valuation.sources import Arrays, HuggingFaceSamples, Table, Texts, WebDataset

DIGITS = load_digits()
IMAGES, LABELS = (DIGITS.images[:6] * 15).astype(np.uint8), DIGITS.target[:6]


class Lengths(Encoder):
    """Length and first letter of a text: enough to tell which text an embedding is of."""

    name, sha256 = "Lengths", None

    def encode(self, x, batch_size=64):
        return torch.tensor([[len(text), ord(text[0])] for text in x]).float()


def labels_of(samples):
    return [samples.classes[c] for c in samples.y.tolist()]


@pytest.mark.parametrize("layout", ["grey", "first", "last"])
@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_arrays_of_images_are_read_whatever_their_layout(tmp_path, layout, kind):
    colour = np.stack([IMAGES, 255 - IMAGES, IMAGES // 2], 1)
    x = {"grey": IMAGES, "first": colour, "last": np.moveaxis(colour, 1, -1)}[layout]
    if kind == "npz":
        np.savez_compressed(tmp_path / "d.npz", inputs=x, y=LABELS)
        source = Arrays(str(tmp_path / "d.npz"), x="inputs")
    else:
        np.save(tmp_path / "d.npy", x)
        np.save(tmp_path / "y.npy", LABELS)
        source = Arrays(str(tmp_path / "d.npy"), labels=str(tmp_path / "y.npy"))
    samples = source.samples()
    expected = IMAGES[:, None] if layout == "grey" else colour
    assert source.input == "image" and source.name == "d" and samples.x.dtype == torch.uint8
    np.testing.assert_array_equal(samples.x.numpy(), expected)
    assert labels_of(samples) == [str(label) for label in LABELS] and source.places[2] == "index 2"


@pytest.mark.parametrize("dtype", ["u2", ">u2", "f4", "f8"])
def test_deep_images_are_floats_from_0_to_1(tmp_path, dtype):
    white = 65535 if dtype.endswith("u2") else 1
    x = (IMAGES / 255 * white).astype(dtype)
    np.savez(tmp_path / "d.npz", x=x, y=LABELS)
    np.testing.assert_allclose(Arrays(str(tmp_path / "d.npz")).samples().x[:, 0], IMAGES / 255, atol=1e-4)


def test_rows_and_names_of_classes(tmp_path):
    rows, names = DIGITS.data[:6], np.array(["zero", "one", "two", "three", "four", "fünf"])
    np.savez(tmp_path / "d.npz", x=rows, y=names)
    source = Arrays(str(tmp_path / "d.npz"))
    samples = source.samples()
    assert source.input == "table" and labels_of(samples) == names.tolist()
    np.testing.assert_array_equal(samples.x.numpy(), rows.astype(np.float32))


def nan(x):
    return np.where(np.arange(len(x))[:, None] == 2, np.nan, x)


@pytest.mark.parametrize(
    ("x", "y", "options", "words"),
    [
        (DIGITS.data[:6], LABELS[:5], {}, ["(5,)", "one label per input"]),
        (DIGITS.data[:6], LABELS, {"y": "z"}, ["has no array z", "x, y"]),
        (nan(DIGITS.data[:6]), LABELS, {}, ["index 2", "finite float32"]),
        (DIGITS.data[:6], np.array([0, 1, np.nan, 1, 1, 1]), {}, ["label 2", "NaN"]),
        (IMAGES * 1.0, LABELS, {}, ["index 0", "from 0 to 1, which is `white`"]),
        (IMAGES.astype(np.int64), LABELS, {}, ["int64", "give `white`"]),
        (np.zeros((6, 3, 8, 3)), LABELS, {}, ["channels_last"]),
        (np.zeros((6, 5, 8, 9)), LABELS, {}, ["channels_last"]),
        (np.zeros((6, 5, 8, 9)), LABELS, {"channels_last": True}, ["9 channels"]),
        (np.zeros(6), LABELS, {}, ["shape (6,)", "reshape"]),
        (np.zeros((0, 4)), LABELS[:0], {}, ["has no samples"]),
        (np.array([["a", "b"]] * 6), LABELS, {}, ["must be numbers"]),
    ],
)
def test_bad_arrays_are_one_sentence(tmp_path, x, y, options, words):
    np.savez(tmp_path / "d.npz", x=x, y=y)
    with pytest.raises(UserError) as error:
        Arrays(str(tmp_path / "d.npz"), **options).samples()
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value), error.value


def test_objects_in_arrays_are_not_unpickled(tmp_path):
    np.savez(tmp_path / "d.npz", x=DIGITS.data[:2], y=np.array([print, "a"], dtype=object))
    with pytest.raises(UserError, match="must hold numbers or texts"):
        Arrays(str(tmp_path / "d.npz")).samples()
    (tmp_path / "d.npz").write_bytes(b"PK\x03\x04 no archive")
    with pytest.raises(UserError, match=r"is not a \.npz file"):
        Arrays(str(tmp_path / "d.npz"))
    with pytest.raises(UserError, match=r"one \.npz file, or"):
        np.save(tmp_path / "d.npy", DIGITS.data)
        Arrays(str(tmp_path / "d.npy"))


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_texts_are_embedded_with_their_labels_groups_and_lines(tmp_path, kind):
    import pandas

    frame = pandas.DataFrame(
        {"body": ["good, really", "bad\nvery", "so so"], "kind": ["a", "b", "a"], "who": [1, 2, 1]}
    )
    path = tmp_path / f"t.{kind}"
    write = {"csv": frame.to_csv, "parquet": frame.to_parquet, "jsonl": frame.to_json}[kind]
    write(path, **({"orient": "records", "lines": True} if kind == "jsonl" else {"index": False}))
    source = Texts(str(path), Lengths(), text="body", label="kind", group="who")
    samples = source.samples()
    expected = torch.nn.functional.normalize(Lengths().encode(frame["body"].tolist()), dim=1)
    torch.testing.assert_close(samples.x, expected)
    assert labels_of(samples) == ["a", "b", "a"] and samples.groups == ("1", "2", "1")
    assert len(source.places) == 3 and str(tmp_path) not in source.places[0]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({"label": "a"}, ["line 2", "no column text"]),
        ({"text": "x", "labl": "a"}, ["line 2", "no column label", 'Did you mean "labl"']),
        ({"text": " ", "label": "a"}, ["line 2", "must be a text"]),
        ({"text": 3, "label": "a"}, ["line 2", "must be a text"]),
        ({"text": "x", "label": None}, ["line 2", "empty"]),
        ({"text": "x", "label": "NaN"}, ["line 2", "NaN"]),
    ],
)
def test_bad_texts_are_named_with_their_line(tmp_path, line, words):
    (tmp_path / "t.jsonl").write_text(f'{{"text": "fine", "label": "b"}}\n{json.dumps(line)}\n')
    with pytest.raises(UserError) as error:
        Texts(str(tmp_path / "t.jsonl"), Lengths()).samples()
    assert all(word in str(error.value) for word in words), error.value


def test_a_jsonl_of_numbers_is_a_table_and_a_later_line_without_a_key_is_named(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_text('{"a": 1, "b": 2.5, "label": "x"}\n{"a": 3, "label": "y", "b": 4}\n')
    assert Table(str(path)).samples().x.tolist() == [[1, 2.5], [3, 4]]
    path.write_text('{"a": 1, "b": 2.5, "label": "x"}\n{"a": 3, "label": "y"}\n')
    with pytest.raises(UserError, match=r"line 2: there is no column b"):
        Table(str(path)).samples()


def test_a_measured_target_is_no_class(tmp_path):
    rows = "".join(f"{i},{i * 1.37:.2f}\n" for i in range(30))
    (tmp_path / "t.csv").write_text("a,price\n" + rows)
    with pytest.raises(UserError, match=r"30 different numbers, such as 1\.37, but a label names a class"):
        Table(str(tmp_path / "t.csv"), label="price").samples()
    (tmp_path / "t.csv").write_text("a,price\n1,0.5\n2,1.5\n3,nan\n")
    with pytest.raises(UserError, match=r"line 4, column price: the cell is NaN"):
        Table(str(tmp_path / "t.csv"), label="price").samples()


def png(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def tar(path, members):
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def members(number, **further):
    key = f"part/{number:04d}"
    return {f"{key}.png": png(IMAGES[number]), f"{key}.cls": str(LABELS[number]).encode(), **further}


def test_shards_of_others_are_read_as_webdataset_reads_them(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    (tmp_path / "shards").mkdir()
    for shard in (0, 1):
        three = [members(shard * 3 + i, **{f"part/{shard * 3 + i:04d}.seg.png": png(IMAGES[0])}) for i in range(3)]
        tar(tmp_path / "shards" / f"{shard}.tar", {name: content for one in three for name, content in one.items()})
    source = WebDataset(str(tmp_path / "shards"), size=8, channels=1)
    samples = source.samples()
    urls = [str(tmp_path / "shards" / f"{shard}.tar") for shard in (0, 1)]
    theirs = list(webdataset.WebDataset(urls, shardshuffle=False, empty_check=False).decode("l8"))
    np.testing.assert_array_equal(samples.x[:, 0].numpy(), np.stack([one["png"] for one in theirs]))
    assert labels_of(samples) == [str(one["cls"]) for one in theirs]
    assert source.places[0].endswith("0.tar, part/0000") and source.input == "image" and source.name == "shards"


def test_arrays_texts_and_labels_in_json_are_read_from_shards(tmp_path):
    rows = {f"{i}.npy": npy(DIGITS.data[i]) for i in range(2)}
    labels = {f"{i}.json": json.dumps({"y": int(LABELS[i])}).encode() for i in range(2)}
    path = tar(tmp_path / "s.tar", dict(sorted((rows | labels).items())))
    samples = WebDataset(str(path), inputs="npy", label="json", field="y").samples()
    np.testing.assert_array_equal(samples.x.numpy(), DIGITS.data[:2].astype(np.float32))
    path = tar(tmp_path / "t.tar", {"a.txt": b"first", "a.cls": b"x", "b.txt": b"2nd", "b.cls": b"y"})
    samples = WebDataset(str(path), inputs="txt", encoder=Lengths()).samples()
    assert labels_of(samples) == ["x", "y"] and samples.x.shape == (2, 2)


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        ({"part/0001.cls": None}, {}, ["part/0001", "no member cls"]),
        ({"part/0001.png": None}, {}, ["part/0001", "0 members with inputs"]),
        ({"part/0001.png": b"\x89PNG\r\n\x1a\nnot really"}, {}, ["part/0001", "1 of 2 samples cannot be used"]),
        ({"part/0001.jpg": b"x"}, {}, ["part/0001", "2 members with inputs"]),
        ({"part/0001.cls": b" "}, {}, ["part/0001", "empty"]),
        ({"part/0001.cls": b"\xff\xfe"}, {}, ["part/0001", "1 of 2 samples"]),
        ({"part/0001.cls": b"[]"}, {"field": "y"}, ["part/0001 is a list"]),
        ({}, {"inputs": "npy"}, ["2 of 2 samples cannot be used", "members with inputs (npy)"]),
        ({}, {"inputs": "txt"}, ["takes `inputs: txt` and encoder together"]),
    ],
)
def test_bad_samples_of_shards_are_named(tmp_path, change, options, words):
    content = members(0) | members(1) | change
    path = tar(tmp_path / "s.tar", {name: content[name] for name in sorted(content) if content[name] is not None})
    with pytest.raises(UserError) as error:
        WebDataset(str(path), **options).samples()
    assert all(word in str(error.value) for word in words) and "\n" not in str(error.value), error.value


def test_a_cut_shard_and_a_missing_one_are_named(tmp_path):
    path = tar(tmp_path / "s.tar", members(0) | members(1))
    path.write_bytes(path.read_bytes()[:1100])
    with pytest.raises(UserError, match=r"s\.tar is not a whole tar file"):
        WebDataset(str(path)).samples()
    with pytest.raises(UserError, match=r"no \.tar file"):
        WebDataset(str(tmp_path / "none"))


def test_a_saved_dataset_is_read_and_its_bad_image_and_label_are_named(tmp_path, monkeypatch):
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["even", "odd"])})
    rows = {"image": [{"bytes": png(image), "path": None} for image in IMAGES], "label": [int(y % 2) for y in LABELS]}

    def saved(name, **changes):
        datasets.Dataset.from_dict({**rows, **changes}, features=features).save_to_disk(tmp_path / name)
        return HuggingFaceSamples(str(tmp_path / name), image="image", size=8, channels=1)

    source = saved("whole")
    samples = source.samples()
    np.testing.assert_array_equal(samples.x[:, 0].numpy(), IMAGES)
    assert labels_of(samples) == ["odd" if y % 2 else "even" for y in LABELS] and source.name == "whole"
    with pytest.raises(UserError, match=r"row 3: the image cannot be decoded"):
        saved("cut", image=[*rows["image"][:3], {"bytes": b"x", "path": None}, *rows["image"][4:]]).samples()
    with pytest.raises(UserError, match=r"row 2, column label: -1 is none of the 2 classes"):
        saved("unlabelled", label=[0, 1, -1, 0, 1, 0]).samples()
