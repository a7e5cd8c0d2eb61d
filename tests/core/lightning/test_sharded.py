"""Tensors in parts; whole checkpoints of several processes are in tests/moe/test_parallel_checkpoints.py."""

import itertools
from pathlib import Path

import pytest
import torch

from lit_core.files.paths import remove_torn_files, replace_whole
from lit_core.lightning.checkpoint import checkpoint_facts
from lit_core.lightning.sharded_checkpoint import ScatteredTensor, divided_like


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
    target, new = tmp_path / "last.ckpt", tmp_path / ".last.ckpt.x.litshift.tmp"
    target.write_text("a file")
    for text in ("first", "second"):
        new.mkdir()
        (new / "part").write_text(text)
        replace_whole(target, new)
        assert (target / "part").read_text() == text
        assert list(tmp_path.iterdir()) == [target]
    new.mkdir()
    (new / "part").write_text("torn")
    remove_torn_files(tmp_path)
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("found_by", ["cleaning", "reading", "the next checkpoint"])
def test_a_kill_between_two_checkpoints_loses_none(tmp_path, monkeypatch, found_by):
    target, new = tmp_path / "last.ckpt", tmp_path / ".last.ckpt.x.litshift.tmp"
    torch.save({"state_dict": {}, "global_step": 7}, target)
    new.write_text("the next")
    whole_rename = Path.rename

    def killed(path, to):
        if path == new:
            raise KeyboardInterrupt
        return whole_rename(path, to)

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        replace_whole(target, new)
    monkeypatch.undo()
    assert not target.exists()
    if found_by == "cleaning":
        remove_torn_files(tmp_path)
        assert list(tmp_path.iterdir()) == [target]
    if found_by == "the next checkpoint":
        replace_whole(target, new)
        assert target.read_text() == "the next" and list(tmp_path.iterdir()) == [target]
    else:
        assert checkpoint_facts(target)["global_step"] == 7
