"""A checkpoint that is not what was written is refused, wherever the damage lies."""

import io
import zipfile

import pytest
import torch

from lit_core.errors import UserError
from lit_core.files.formats import stamp
from lit_core.lightning.checkpoint import AtomicCheckpointIO, read_checkpoint_file, streamed_checkpoint
from lit_core.lightning.checksums import _damaged_part

CONTENT = {
    **stamp("litshift-checkpoint"),
    "state_dict": {"a": torch.arange(64.0), "b": torch.arange(5)},
    "global_step": 3,
    "hyper_parameters": {"width": 3},
}


def equal(content):
    weights = all(torch.equal(content["state_dict"][name], value) for name, value in CONTENT["state_dict"].items())
    return weights and {**content, "state_dict": 0} == {**CONTENT, "state_dict": 0}


@pytest.fixture(params=["written", "streamed"])
def path(request, tmp_path):
    target = tmp_path / "x.ckpt"
    if request.param == "written":
        AtomicCheckpointIO().save_checkpoint(CONTENT, target)
    else:
        with streamed_checkpoint(target, CONTENT) as weights:
            for name, value in CONTENT["state_dict"].items():
                weights[name].copy_(value)
    return target


def test_the_checksums_are_those_of_the_content(path):
    assert zipfile.ZipFile(path).testzip() is None
    assert equal(read_checkpoint_file(path))


def test_a_flipped_bit_is_found_wherever_it_matters(path):
    whole, refused = path.read_bytes(), 0
    for position in range(0, len(whole), 9):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        _damaged_part.cache_clear()  # so many writes are within one tick of the clock
        try:
            assert equal(read_checkpoint_file(path)), position
        except UserError as error:
            assert str(error).startswith(f"--ckpt_path is {path}, which ")
            refused += 1
    weights = sum(value.nbytes for value in CONTENT["state_dict"].values())
    assert refused > weights / 9


def test_each_way_to_read_a_checkpoint_compares_it(path):
    whole = path.read_bytes()
    position = whole.index(CONTENT["state_dict"]["a"].numpy().tobytes())
    path.write_bytes(whole[:position] + b"\x01" + whole[position + 1 :])
    for read in (read_checkpoint_file, AtomicCheckpointIO().load_checkpoint):
        with pytest.raises(UserError, match=r"which is damaged: its part .*data/0 is not what was written"):
            read(path)


def test_what_was_streamed_before_there_were_checksums_is_read(tmp_path):
    file = io.BytesIO()
    torch.save({**CONTENT, "version": 1, "companions": {}}, file)
    whole = bytearray(file.getvalue())
    position = whole.index(CONTENT["state_dict"]["a"].numpy().tobytes())
    whole[position] ^= 1
    (tmp_path / "x.ckpt").write_bytes(whole)
    assert read_checkpoint_file(tmp_path / "x.ckpt")["global_step"] == 3
