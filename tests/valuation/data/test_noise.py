"""Noise falls on a random share of all samples, unless the published protocol is asked for by name."""

import pytest
import torch

from lit_core.errors import UserError
from lit_valuation.data.noise import Noise
from lit_valuation.sources import Digits, SklearnTable

DIGITS = Digits().samples()
WINE = SklearnTable("wine").samples()


def test_the_share_of_labels_is_wrong_and_nothing_else_changes():
    noisy, keys = Noise(labels=0.2).corrupt(DIGITS, 5)
    changed = [key for key, right in zip(DIGITS.keys, (noisy.y == DIGITS.y).tolist(), strict=True) if not right]
    assert changed == keys["labels"] and len(changed) == round(0.2 * len(DIGITS)) and not keys["inputs"]
    assert torch.equal(noisy.x, DIGITS.x) and noisy.keys == DIGITS.keys
    # every other class comes up about as often, and depends on nothing but the draw
    steps = (noisy.y - DIGITS.y)[noisy.y != DIGITS.y] % 10
    assert steps.bincount(minlength=10)[1:].min() > 20


@pytest.mark.parametrize("samples", [DIGITS, WINE], ids=["image", "table"])
def test_the_share_of_inputs_is_disturbed(samples):
    noisy, keys = Noise(inputs=0.3, strength=0.25).corrupt(samples, 1)
    changed = (noisy.x != samples.x).flatten(1).any(1)
    assert [key for key, moved in zip(samples.keys, changed.tolist(), strict=True) if moved] == keys["inputs"]
    assert len(keys["inputs"]) == round(0.3 * len(samples)) and torch.equal(noisy.y, samples.y)
    assert noisy.x.dtype == samples.x.dtype
    if samples is WINE:
        moved = ((noisy.x - samples.x) / samples.x.std(0, unbiased=False))[changed]
        assert abs(float(moved.std()) - 0.25) < 0.03 and abs(float(moved.mean())) < 0.03


def test_good_samples_are_corrupted_unless_protected():
    good = DIGITS.keys[:300]
    _, keys = Noise(labels=0.5).corrupt(DIGITS, 0)
    assert 100 < len(set(good) & set(keys["labels"])) < 200
    noisy, keys = Noise(labels=0.5, inputs=0.5).corrupt(DIGITS, 0, protect=good)
    assert not set(good) & {*keys["labels"], *keys["inputs"]}
    assert torch.equal(noisy.x[:300], DIGITS.x[:300]) and torch.equal(noisy.y[:300], DIGITS.y[:300])
    assert len(keys["labels"]) == round(0.5 * (len(DIGITS) - 300))


def test_equal_seeds_are_equal_and_no_noise_is_none():
    one, other = (Noise(labels=0.1, inputs=0.1).corrupt(WINE, 7)[0] for _ in range(2))
    assert torch.equal(one.x, other.x) and torch.equal(one.y, other.y)
    assert Noise().corrupt(WINE, 0)[0] is WINE


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Noise(labels=1.5), "labels is 1.5"),
        (lambda: Noise(inputs=-0.1), "inputs is"),
        (lambda: Noise(strength=0), "strength"),
        (lambda: Noise(owners=["owner_7"]).check_owners(["owner_1"]), "owner_7"),
        (lambda: Noise(labels=0.5).corrupt(WINE.of_classes(["class_0"]), 0), "two classes"),
    ],
)
def test_mistakes_are_one_sentence(make, words):
    with pytest.raises(UserError, match=words):
        make()
