"""Tensors in parts; whole checkpoints of several processes are in tests/moe/test_parallel_checkpoints.py."""

import itertools

import torch

from lit_core.paths import remove_torn_files
from lit_core.sharded import ScatteredTensor, divided_like, replace_folder


def test_every_region_of_a_scattered_tensor_is_that_of_the_whole():
    whole = torch.arange(5 * 6, dtype=torch.bfloat16).reshape(5, 6)
    rows, columns = [(0, 2), (2, 4), (4, 5)], [(0, 3), (3, 6)]
    parts = [((r, c), whole[r:s, c:d].clone()) for (r, s), (c, d) in itertools.product(rows, columns)]
    scattered = ScatteredTensor(whole.to("meta"), parts)
    assert scattered.shape == whole.shape and torch.equal(scattered.whole(), whole)
    assert torch.equal(divided_like(scattered, whole), whole) and divided_like(whole, whole) is whole
    for first, last in itertools.combinations_with_replacement(range(6), 2):
        for begin, end in itertools.combinations_with_replacement(range(7), 2):
            region = slice(first, last), slice(begin, end)
            assert scattered[region].dtype == whole.dtype and torch.equal(scattered[region], whole[region])


def test_a_folder_takes_the_place_of_a_file_and_of_a_folder(tmp_path):
    target, new = tmp_path / "last.ckpt", tmp_path / ".last.ckpt.tmp"
    target.write_text("a file")
    for text in ("first", "second"):
        new.mkdir()
        (new / "part").write_text(text)
        replace_folder(target, new)
        assert (target / "part").read_text() == text
        assert list(tmp_path.iterdir()) == [target]
    new.mkdir()
    (new / "part").write_text("torn")
    remove_torn_files(tmp_path)
    assert list(tmp_path.iterdir()) == [target]
