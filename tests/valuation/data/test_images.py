"""An image's declared size is compared before it is decoded: a megabyte of PNG can hold gigabytes of pixels."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFile

from lit_core.errors import RunFailure, UserError
from lit_valuation.data import images
from lit_valuation.data.images import decoded_image
from lit_valuation.data.labelled_sets import LabelledSet
from lit_valuation.sources import ImageFolder


def png(width, height):
    buffer = io.BytesIO()
    Image.new("1", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def no_decoding(monkeypatch):
    def load(self):
        raise AssertionError("it was decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)


def test_a_size_that_was_not_asked_for_is_not_decoded(no_decoding):
    with pytest.raises(ValueError, match=r"\(300, 200\) pixels, but must be \(8, 8\)"):
        decoded_image(png(200, 300), "RGB", (8, 8))


def test_more_pixels_than_are_read_are_not_decoded(no_decoding, monkeypatch, tmp_path):
    monkeypatch.setattr(images, "MOST_PIXELS", 1000)
    with pytest.raises(ValueError, match="40 x 30 pixels, but at most 1,000 are read"):
        decoded_image(png(40, 30), "RGB")
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x.png").write_bytes(png(40, 30))
    with pytest.raises(UserError, match=r"x\.png \(it has 40 x 30 pixels"):
        ImageFolder(str(tmp_path), "i").samples()


def test_a_sample_of_another_size_than_its_set_is_not_decoded(no_decoding, tmp_path):
    from lit_core.data import write_index, write_shard

    entry = write_shard(tmp_path / "0.tar", [{"__key__": "k", "png": png(5000, 5000), "json": {"label": "a"}}])
    meta = {"input": "image", "classes": ["a"], "shape": [3, 8, 8]}
    write_index(tmp_path, [entry], kind="labelled", source="s", split="val", meta=meta)
    with pytest.raises(RunFailure, match=r"\(5000, 5000\) pixels, but must be \(8, 8\)"):
        LabelledSet(tmp_path).load()


def test_what_fits_is_decoded():
    assert np.array(decoded_image(png(8, 8), "RGB", (8, 8))).shape == (8, 8, 3)
