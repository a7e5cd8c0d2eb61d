"""Splits hold each class in its share, no sample twice, and never leave a class without training samples."""

from collections import Counter

import numpy as np
import pytest
import torch

from lit_core.errors import UserError
from lit_valuation.data.splitting import split
from lit_valuation.samples import Samples


def samples(sizes):
    y = torch.from_numpy(np.random.default_rng(0).permutation(np.repeat(np.arange(len(sizes)), sizes)))
    names = tuple(f"c{number}" for number in range(len(sizes)))
    return Samples(torch.zeros(len(y), 1), y, names, tuple(f"k{number}" for number in range(len(y))))


@pytest.mark.parametrize("sizes", [[100, 57, 10], [3] * 50, [2] * 40 + [1] * 9, [1, 1, 30]])
def test_each_split_has_its_share_of_each_class(sizes):
    given = samples(sizes)
    found = split(given, {"val": 0.2, "test": 0.1}, seed=3)
    assert sorted(key for part in found.values() for key in part.keys) == sorted(given.keys)
    assert set(found["train"].y.tolist()) == set(range(len(sizes)))
    divisible = sum(size for size in sizes if size > 1)
    for part, fraction in (("val", 0.2), ("test", 0.1)):
        counts = Counter(found[part].y.tolist())
        assert abs(len(found[part]) - fraction * divisible) <= 1
        assert all(abs(counts[c] - fraction * size) < 2 for c, size in enumerate(sizes))
        assert list(found[part].keys) == sorted(found[part].keys, key=lambda key: int(key[1:]))


def test_the_seed_alone_decides():
    given = samples([20, 20])
    first, again, other = (split(given, {"val": 0.3}, seed)["val"].keys for seed in (0, 0, 1))
    assert first == again != other and set(split(given, {"val": 0.0}, 0)) == {"train"}


def test_ten_thousand_classes_of_one_sample_are_refused():
    with pytest.raises(UserError, match=r"10,000 samples in 10,000 classes, of which no class can spare one for val"):
        split(samples([1] * 10_000), {"val": 0.2}, 0)


def test_classes_that_a_split_does_not_hold_are_told_of(capsys):
    split(samples([50, 1, 1, 1, 1]), {"val": 0.2}, 0)
    assert "4 of 5 classes have too few samples to be in val: c1, c2, c3 and 1 more" in capsys.readouterr().err
