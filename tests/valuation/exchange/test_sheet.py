import csv

import numpy as np
import pytest
import torch
from PIL import Image

from lit_core.lm.tokenizer import Tokenizer
from lit_valuation import RegressionTask
from lit_valuation.exchange.sheet import disclosure, write_sheet
from lit_valuation.nn import MLP
from lit_valuation.samples import Samples, next_tokens


def test_a_table_becomes_a_csv(tmp_path):
    x = torch.tensor([[1.5, 2.0], [3.0, 4.25]])
    rows = Samples(x, torch.tensor([1, 0]), ("calm", "attack"), ("r1", "r2"))
    with write_sheet(tmp_path / "answer", rows, ["bytes", "packets"]).open() as file:
        read = list(csv.DictReader(file))
    assert read[0] == {"name": "r1", "class": "attack", "bytes": "1.5", "packets": "2"}
    assert [path.name for path in tmp_path.iterdir()] == ["answer.csv"]


def shown(tmp_path, x, classes=("calm",), key="mine-0000001"):
    """Return the pixels of the sheet of one sample."""
    path = write_sheet(tmp_path / "answer", Samples(x, torch.tensor([0]), classes, (key,)), None)
    assert path.suffix == ".png"
    with Image.open(path) as sheet:
        return np.asarray(sheet.convert("RGB"))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("size", [(8, 8), (6, 12), (150, 130)])
def test_each_pixel_that_the_model_sees_is_on_the_sheet(tmp_path, channels, dtype, size):
    pixels = torch.randint(256, (1, channels, *size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    sheet = shown(tmp_path, pixels if dtype == torch.uint8 else pixels / 255)
    parts = [pixels[0, :3].expand(3, -1, -1)] + ([pixels[0, 3:].expand(3, -1, -1)] if channels == 4 else [])
    seen = np.concatenate([part.permute(1, 2, 0).numpy() for part in parts], axis=1)
    factor = max(1, -(-96 // min(seen.shape[:2])))
    expected = seen.repeat(factor, 0).repeat(factor, 1)
    np.testing.assert_array_equal(sheet[: expected.shape[0], : expected.shape[1]], expected)


def test_a_large_image_is_scaled_down_and_not_thinned_out(tmp_path):
    board = (torch.arange(768)[:, None] + torch.arange(768)) % 2 * 255
    sheet = shown(tmp_path, board[None, None].to(torch.uint8))
    assert 126 <= sheet[:384, :384].min() <= sheet[:384, :384].max() <= 129


@pytest.mark.parametrize("name", ["dog", "große Hunde", "狗"])
def test_the_whole_name_of_a_sample_and_its_class_are_below_it(tmp_path, name):
    x = torch.full((1, 1, 8, 8), 255, dtype=torch.uint8)
    one, other = (
        shown(tmp_path / place, x, (name,), key)
        for place, key in (("a", "a-long-name-0000001"), ("b", "a-long-name-0000002"))
    )
    assert one.shape == other.shape and not np.array_equal(one[108:], other[108:]) and (one[96:108] < 255).any()
    np.testing.assert_array_equal(one[:108], other[:108])


def test_a_trainer_is_told_that_the_model_of_a_regression_tells_of_its_targets():
    rows = Samples(torch.zeros(2, 3), torch.tensor([[1.0], [2.0]]), ("price",), ("a", "b"), target="values")
    said = disclosure(rows, RegressionTask(MLP((3,), 1, [4]), ("price",), (3,)))[-1]
    assert (
        "names of all target columns that it knows (1), with mean and standard deviation of each in your train" in said
    )


def texts(y, target, classes):
    ids = torch.tensor([list(b"Anna lives."), [*b"Go", *[-1] * 9]])
    return Samples(ids, next_tokens(ids) if y is None else torch.tensor(y), classes, ("t1", "t2"), target=target)


def test_texts_are_shown_in_words_beside_their_token_ids(tmp_path):
    samples = texts(None, "text", ("next token",))
    with write_sheet(tmp_path / "answer", samples, None, Tokenizer.bytes()).open() as file:
        read = list(csv.DictReader(file))
    assert read[1] == {"name": "t2", "target": "1 tokens", "text": "Go", "token ids": "71 111"}


@pytest.mark.parametrize(
    ("first", "shown"),
    [
        ([0, *[-100] * 4, 1, *[-100] * 4, 2], "Anna [NAME] lives [WORD] . [SIGN]"),
        ([0, *[-100] * 10], "Anna [NAME] lives."),  # tags that a class map leaves out
        ([*[-100] * 5, 1, *[-100] * 5], "Anna lives. [WORD]"),
    ],
)
def test_each_tag_stands_behind_its_word(first, shown, tmp_path):
    samples = texts([first, [1, *[-100] * 10]], "tags", ("NAME", "WORD", "SIGN"))
    with write_sheet(tmp_path / "answer", samples, None, Tokenizer.bytes()).open() as file:
        read = list(csv.DictReader(file))
    assert [row["target"] for row in read] == [shown, "Go [WORD]"] and read[0]["text"] == "Anna lives."


def test_without_a_tokenizer_there_are_token_ids_and_a_word_about_it(tmp_path, capsys):
    with write_sheet(tmp_path / "answer", texts(None, "text", ("next token",)), None).open() as file:
        assert set(next(csv.DictReader(file))) == {"name", "target", "token ids"}
    assert "the same `prepare` again writes it" in capsys.readouterr().out
