"""Token windows against plain concatenation."""

import io
import json
import pickle

import numpy as np
import pytest
import tiny_run
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_core.data import TokenWindows, write_index, write_shard
from lit_core.errors import RunFailure, UserError


def windows_by_hand(tokens, length, tail):
    tokens = tokens.astype(np.int64)
    samples = [
        (tokens[start : start + length], tokens[start + 1 : start + length + 1])
        for start in range(0, len(tokens) - 1, length)
    ]
    if len(samples[-1][1]) < length:
        inputs, labels = samples.pop()
        if tail:
            missing = length - len(labels)
            samples.append(
                (np.pad(inputs[: len(labels)], (0, missing)), np.pad(labels, (0, missing), constant_values=-100))
            )
    return [(inputs[: len(labels)], labels) for inputs, labels in samples]


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(2, 400), length=st.integers(1, 60), shards=st.integers(1, 4), chunk=st.integers(1, 90),
    tail=st.booleans(), wide=st.booleans(),
)  # fmt: skip
def test_windows_are_those_of_one_row(tmp_path_factory, count, length, shards, chunk, tail, wide):
    tokens = tiny_run.byte_tokens(tiny_run.real_documents())[:count].astype(np.uint32 if wide else np.uint16)
    tokens[-1] = 65535 + 100 * wide
    if count - 1 < length and not tail:
        return
    folder = tiny_run.write_tokens(
        tmp_path_factory.mktemp("set"), tokens, shards=min(shards, count), chunk=chunk, vocab_size=2**17
    )
    np.save(folder / "plain.npy", tokens)
    tokens.tofile(folder / "plain.bin")
    sources = [
        TokenWindows(folder, length, tail=tail),
        TokenWindows(folder / "plain.npy", length, tail=tail),
        TokenWindows(folder / "plain.bin", length, tail=tail, dtype=str(tokens.dtype)),
    ]
    expected = windows_by_hand(tokens, length, tail)
    for windows in sources:
        assert len(windows) == len(expected) == ((count - 1 + length - 1) if tail else (count - 1)) // length
        assert windows.tokens == count
        for index, (inputs, labels) in enumerate(expected):
            sample = windows[index]
            assert sample["input_ids"].tolist() == inputs.tolist() and sample["labels"].tolist() == labels.tolist()
            assert sample["index"] == index and sample["labels"].dtype == torch.int64
        together = windows.batch(range(len(expected))[::-1])
        assert together["labels"].tolist() == [labels.tolist() for _, labels in expected[::-1]]
        assert together["index"].tolist() == list(range(len(expected)))[::-1]
        for outside in (len(expected), -1):
            with pytest.raises(IndexError):
                windows[outside]


def test_bytes_of_all_targets_are_the_size_of_the_text(tmp_path):
    documents = tiny_run.real_documents()
    size = sum(len(text.encode()) for text in documents)
    folder = tiny_run.write_tokens(tmp_path / "x", tiny_run.byte_tokens(documents), text_bytes=size)
    windows = TokenWindows(folder, 100, tail=True)
    byte_lengths = torch.tensor([*[1] * 256, 0])
    labels = torch.cat([windows[index]["labels"] for index in range(len(windows))])
    assert byte_lengths[labels[labels != -100]].sum() == windows.text_bytes == size
    assert windows.tokenizer["end_of_text"] == tiny_run.END and windows.name == "x"


def test_document_ids_grow_at_each_end_of_text(tmp_path):
    documents = ["ab", "c", "", "defg"]
    folder = tiny_run.write_tokens(tmp_path / "x", tiny_run.byte_tokens(documents), shards=1)
    sample = TokenWindows(folder, 12, document_mask=True, tail=True)[0]
    assert sample["input_ids"].tolist() == [256, 97, 98, 256, 99, 256, 256, 100, 101, 102, 103, 0]
    assert sample["labels"].tolist() == [97, 98, 256, 99, 256, 256, 100, 101, 102, 103, 256, -100]
    assert sample["document_ids"].tolist() == [1, 1, 1, 2, 2, 3, 4, 4, 4, 4, 4, 4]


def test_copies_for_other_processes_map_the_files_themselves(tmp_path):
    """A worker that is not forked gets a pickled copy; tests of the loader start real ones."""
    folder = tiny_run.write_tokens(tmp_path / "x", tiny_run.byte_tokens(tiny_run.real_documents()))
    np.save(tmp_path / "x.npy", np.arange(99_999))
    for path in (folder, tmp_path / "x.npy"):
        windows = TokenWindows(path, 30)
        expected = windows[1]["labels"].tolist()  # maps the file before the copy is made
        pickled = pickle.dumps(windows)
        assert len(pickled) < 10_000
        assert pickle.loads(pickled)[1]["labels"].tolist() == expected


def test_headers_that_lie_are_found(tmp_path):
    """Damage that keeps the size, and a hash that was not checked."""
    folder = tiny_run.write_tokens(tmp_path / "x", np.arange(3000, dtype=np.uint16), shards=1, vocab_size=3000)
    shard = folder / "000000.tar"
    content = shard.read_bytes()
    for old, new in ((b"'<u2'", b"'<i2'"), (b"(1000,)", b"(2000,)"), (b"NUMPY", b"LUMPY")):
        shard.write_bytes(content.replace(old, new))
        with pytest.raises(RunFailure, match=r"000000\.tar is damaged: its member 000000-000000\.npy"):
            TokenWindows(folder, 10, verify=False)[0]
        with pytest.raises(UserError, match="SHA-256"):
            TokenWindows(folder, 10)


def other_kind(folder):
    write_index(
        folder, [write_shard(folder / "0.tar", [{"__key__": "a", "txt": "b"}])], kind="text", source="x", split="val"
    )
    return folder


def no_count(folder):
    tiny_run.write_tokens(folder, np.arange(300, dtype=np.uint16), shards=1)
    index = json.loads((folder / "index.json").read_text())
    del index["shards"][0]["members"][0]["tokens"]
    (folder / "index.json").write_text(json.dumps(index))
    return folder


def saved(name, array):
    def write(folder):
        folder.mkdir()
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=True)
        (folder / name).write_bytes(buffer.getvalue() if name.endswith("npy") else array.tobytes())
        return folder / name

    return write


@pytest.mark.parametrize(
    ("make", "options", "words"),
    [
        (other_kind, {}, "kind 'text'"),
        (no_count, {}, "counts 300 tokens but has 0"),
        (saved("x.npy", np.zeros((3, 3), np.uint16)), {}, "in one row"),
        (saved("x.npy", np.zeros(9)), {}, "float64"),
        (saved("x.npy", np.array([None])), {}, "not a .npy file of numbers"),
        (saved("x.npy", np.arange(5)), {}, "has 5 tokens, but a sample needs 9"),
        (saved("x.npy", np.arange(1)), {"tail": True}, "has 1 tokens, but a sample needs 2"),
        (saved("x.npy", np.arange(99)), {"document_mask": True}, "end-of-text"),
        (saved("x.npy", np.arange(99)), {"dtype": "uint16"}, "leave dtype out"),
        (saved("x.bin", np.arange(99)), {}, "give dtype"),
        (
            saved("x.bin", np.zeros(99, np.uint8)),
            {"dtype": "uint16"},
            "99 bytes, but uint16 tokens need a positive multiple of 2",
        ),
        (lambda folder: folder / "none.npy", {}, "does not exist"),
        (saved("x.npy", np.arange(99)), {"length": 0}, "length is 0"),
    ],
)
def test_refusals(tmp_path, make, options, words):
    with pytest.raises(UserError, match=words) as raised:
        TokenWindows(make(tmp_path / "x"), **{"length": 8, **options})
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["x.bin", "x.npy"])
@pytest.mark.parametrize("dtype", ["uint16", "uint32", "int32", "int64"])
@pytest.mark.parametrize("size", [257, 65_536, 65_537, 152_064])
def test_a_type_too_small_for_the_vocabulary_is_refused(tmp_path, name, dtype, size):
    tokens = np.arange(size - 99, size).astype(dtype)  # cut off where they do not fit
    path = saved(name, tokens)(tmp_path / "x")
    windows = TokenWindows(path, 8, dtype=dtype if name == "x.bin" else None)
    if size > np.iinfo(dtype).max + 1:
        with pytest.raises(UserError, match=f"holds tokens of {dtype}, .* {size} tokens"):
            windows.vocab_size = size
    else:
        windows.vocab_size = size
        windows.verify()
        windows.vocab_size = size - 1  # a smaller vocabulary lacks the last token
        with pytest.raises(UserError, match=f"token {size - 1}, but its tokenizer has {size - 1}"):
            windows.verify()


@pytest.mark.parametrize(("written", "read"), [("uint32", "uint16"), ("int64", "uint32"), ("int64", "uint16")])
def test_numbers_of_another_width_are_refused(tmp_path, written, read):
    """Read as half of their width, small numbers are within any vocabulary."""
    path = saved("x.bin", np.arange(1, 100).astype(written))(tmp_path / "x")
    windows = TokenWindows(path, 8, dtype=read)
    windows.vocab_size = 257
    with pytest.raises(UserError, match=f"read as {read}, .* correct dtype"):
        windows.verify()
    wide = TokenWindows(saved("x.bin", np.arange(1, 101).astype(np.uint16))(tmp_path / "y"), 8, dtype="uint32")
    wide.vocab_size = 257
    with pytest.raises(UserError, match="but its tokenizer has 257"):
        wide.verify()
