"""Backgrounds go with the class except in the hard group; the images themselves stay."""

import pytest
import torch

from lit_core.errors import UserError
from lit_valuation.data.planting import HARD, OTHER, USUAL, PlantedBackground, ScarceClasses, paint, stripes
from lit_valuation.sources import Digits, SklearnTable

DIGITS = Digits().samples()


def upright(images):
    """Tell where stripes are upright: a column that no digit reaches is then of one grey, but for the noise."""
    return images[:, 0, :, 0].float().std(1) < 20


def test_the_hard_group_shows_the_background_of_the_other_class():
    planted = PlantedBackground(["3", "8"], 0.25).plant(DIGITS, seed=3)
    groups = torch.tensor([[USUAL, HARD, OTHER].index(group) for group in planted.groups])
    for number, usual in ((3, True), (8, False)):
        mine = planted.y == number
        assert int((groups[mine] == 1).sum()) == round(0.25 * int(mine.sum())) and not (groups[mine] == 2).any()
        for group, expected in ((0, usual), (1, not usual)):
            found = upright(planted.x[mine & (groups == group)])
            assert float((found == expected).float().mean()) > 0.95
    others = ~torch.isin(planted.y, torch.tensor([3, 8]))
    assert (groups[others] == 2).all() and torch.equal(planted.x[others], DIGITS.x[others])


def test_only_dark_pixels_are_painted_and_equal_seeds_are_equal():
    planted = PlantedBackground(["0", "1", "2"]).plant(DIGITS, seed=1)
    bright = DIGITS.x >= 32
    assert torch.equal(planted.x[bright], DIGITS.x[bright])
    again = PlantedBackground(["0", "1", "2"]).plant(DIGITS, seed=1)
    assert torch.equal(planted.x, again.x) and planted.groups == again.groups
    assert not torch.equal(planted.x, PlantedBackground(["0", "1", "2"]).plant(DIGITS, seed=2).x)


def test_a_border_leaves_the_middle_and_floats_stay_floats():
    images = DIGITS.inputs()[:5].repeat(1, 3, 1, 1)
    painted = paint(images, stripes(images, 0.5, torch.Generator().manual_seed(0)), "border")
    assert painted.dtype == torch.float32 and painted.shape == images.shape
    assert torch.equal(painted[..., 1:-1, 1:-1], images[..., 1:-1, 1:-1])
    assert not torch.equal(painted[..., 0, :], images[..., 0, :])


def test_scarce_classes_are_the_hard_group():
    wine = SklearnTable("wine").samples()
    planted = ScarceClasses(["class_1"]).plant(wine)
    assert [group == HARD for group in planted.groups] == (wine.y == 1).tolist()
    assert torch.equal(planted.x, wine.x)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: PlantedBackground(["3"]), "two or more"),
        (lambda: PlantedBackground(["3", "3"]), "different"),
        (lambda: PlantedBackground(["3", "8"], 1.0), "hard_fraction is 1.0"),
        (lambda: PlantedBackground(["3", "ten"]).plant(DIGITS), "names ten"),
        (lambda: PlantedBackground(["class_0", "class_1"]).plant(SklearnTable("wine").samples()), "need images"),
        (lambda: ScarceClasses([]), "classes is empty"),
        (lambda: ScarceClasses(list("0123456789")).plant(DIGITS), "all classes"),
    ],
)
def test_mistakes_are_one_sentence(make, words):
    with pytest.raises(UserError, match=words):
        make()
