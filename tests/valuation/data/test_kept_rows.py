"""Samples of an added set that equal or nearly equal evaluation samples, by the rule of `rank`, read from disk."""

from dataclasses import replace

import pytest
import torch

from lit_core.errors import UserError
from lit_valuation.data.copies import CopyFinder, content_fingerprints
from lit_valuation.data.labelled_sets import LabelledSet, write_labelled
from lit_valuation.data.module import OwnersDataModule
from lit_valuation.samples import Samples, merge_samples, next_tokens
from lit_valuation.sources import Digits


@pytest.mark.parametrize("near", [0.25, 0.0])
def test_near_copies_of_evaluation_samples_are_not_trained_on_either(tmp_path, near):
    """The rule of `rank`: digits with each pixel changed a little and made darker are copies, other digits are not."""
    digits = Digits().samples()
    digits = replace(digits, x=digits.x.float() / 255)
    for split, rows in (("train", range(300)), ("val", range(300, 400)), ("test", range(400, 500))):
        write_labelled(tmp_path / split, digits.take(rows), source="", split="", licence="", origin="")
    honest, taken = digits.take(range(600, 640)), digits.take([310, 401, 450])
    changed = 0.8 * taken.x + 0.01 * torch.rand(taken.x.shape, generator=torch.Generator().manual_seed(0))
    copies = replace(taken, x=torch.cat([changed[:2], taken.x[2:]]))
    write_labelled(tmp_path / "mixed", merge_samples([copies, honest]), source="", split="", licence="", origin="")
    module = OwnersDataModule(str(tmp_path), extra=[str(tmp_path / "mixed")], near=near)
    told = r"3 of the 43 .*\(1 equal, 2 nearly\).*lower data.near" if near else r"1 of the 43 .*\(1 equal, 0 nearly\)"
    with pytest.warns(UserWarning, match=told):
        train = module._train
    assert len(train) == 300 + (40 if near else 42)
    own = CopyFinder(digits.take(range(300)), None, near)  # in memory, as rank has them
    is_copy = own.all(own.prepare(merge_samples([copies, honest])), own.prepare(digits.take(range(300, 500))))
    assert is_copy.tolist() == [bool(near)] * 2 + [True] + [False] * 40
    with pytest.raises(UserError, match=r"near is 1\.5, but must be from 0 to below 1"):
        OwnersDataModule(str(tmp_path), near=1.5)


@pytest.mark.parametrize("kind", ["image", "table", "tokens"])
def test_samples_on_disk_are_compared_as_those_in_memory(tmp_path, kind):
    draws = torch.Generator().manual_seed(1)
    if kind == "image":
        x = torch.randint(0, 256, (80, 1, 6, 6), generator=draws, dtype=torch.uint8)
    elif kind == "table":
        x = 1e4 + torch.randn(80, 5, generator=draws)
    else:
        x = torch.randint(0, 50, (80, 12), generator=draws)
    target = "text" if kind == "tokens" else "class"
    y = next_tokens(x) if target == "text" else torch.zeros(80, dtype=torch.int64)
    names = ("next token",) if target == "text" else ("any",)
    samples = Samples(x, y, names, tuple(map(str, range(80))), target=target)
    write_labelled(
        tmp_path / "own", samples, source="", split="", licence="", origin="", meta={"input": kind, "vocabulary": "v"}
    )
    stored = LabelledSet(tmp_path / "own")
    kept, read = CopyFinder(samples, None, 0.25), CopyFinder(stored, None, 0.25)
    assert read.distances == kept.distances and content_fingerprints(stored) == content_fingerprints(samples)
    order = torch.tensor([3, 3, 70, 0])
    assert torch.equal(read.own.rows(0, order), kept.own.rows(0, order))
    assert torch.equal(read.all(read.own, read.own), torch.ones(80, dtype=torch.bool))
