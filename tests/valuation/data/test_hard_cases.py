import pytest
import torch
from sklearn.datasets import load_digits

from lit_core.errors import UserError
from lit_valuation.data.hard_cases import hard_cases, perfect_hard_cases, worst_cases
from lit_valuation.samples import Samples


@pytest.fixture(scope="module")
def digits():
    bunch = load_digits()
    names = tuple(map(str, range(10)))
    keys = tuple(f"{number:04d}" for number in range(len(bunch.target)))
    return Samples(torch.tensor(bunch.data).float() / 16, torch.tensor(bunch.target), names, keys)


@pytest.fixture(scope="module")
def predicted(digits):
    """Every fourth sample is taken for the next digit, and no 9 is mistaken."""
    wrong = (torch.arange(len(digits)) % 4 == 0) & (digits.y != 9)
    return torch.where(wrong, (digits.y + 1) % 10, digits.y)


def test_mistakes_are_divided_class_by_class(digits, predicted):
    cases = hard_cases(digits, predicted, per_class=8, seed=3)
    assert cases.classes == tuple(map(str, range(9)))
    assert cases.queries.y.bincount().tolist() == [8] * 9
    mistakes = {key for key, y, guess in zip(digits.keys, digits.y, predicted, strict=True) if y != guess}
    assert set(cases.queries.keys) | set(cases.held_out.keys) == mistakes
    assert not set(cases.queries.keys) & set(cases.held_out.keys)


def test_a_smaller_number_is_part_of_a_larger_one_and_the_seed_draws(digits, predicted):
    few, many = (hard_cases(digits, predicted, per_class, seed=1) for per_class in (3, 8))
    assert set(few.queries.keys) < set(many.queries.keys)
    assert hard_cases(digits, predicted, 3, seed=1).queries.keys == few.queries.keys
    assert hard_cases(digits, predicted, 3, seed=2).queries.keys != few.queries.keys


def test_half_of_a_class_stays_home(digits):
    predicted = digits.y.clone()
    threes, fives = ((digits.y == number).nonzero().squeeze(1) for number in (3, 5))
    predicted[torch.cat([threes[:5], fives[:1]])] = 8
    cases = hard_cases(digits, predicted, per_class=100)
    assert (cases.queries.y == 3).sum() == 3 and (cases.held_out.y == 3).sum() == 2
    assert (cases.queries.y == 5).sum() == 1 and (cases.held_out.y == 5).sum() == 0
    assert hard_cases(digits, predicted, 100, classes=["3"]).classes == ("3",)


def test_perfect_hard_cases_are_those_that_full_information_gets_right(digits, predicted):
    full = torch.where(torch.arange(len(digits)) % 8 == 0, predicted, digits.y)
    cases = perfect_hard_cases(digits, predicted, full, per_class=4)
    kept = set(cases.queries.keys) | set(cases.held_out.keys)
    assert kept == {key for n, key in enumerate(digits.keys) if n % 8 == 4 and digits.y[n] != 9}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"predicted": "right"}, "makes no mistakes on these samples"),
        ({"classes": ["9"]}, "makes no mistakes on the samples of 9"),
        ({"classes": ["nine"]}, "classes names nine"),
        ({"per_class": 0}, "per_class is 0"),
        ({"predicted": torch.zeros(3)}, r"predicted has shape \(3,\)"),
        ({"predicted": "one"}, "makes only 1 mistakes"),
    ],
)
def test_bad_input(digits, predicted, change, sentence):
    one = digits.y.clone()
    one[0] += 1
    given = {"predicted": predicted, "per_class": 4} | change
    given["predicted"] = (
        {"right": digits.y, "one": one}.get(given["predicted"], None)
        if isinstance(given["predicted"], str)
        else given["predicted"]
    )
    with pytest.raises(UserError, match=sentence):
        hard_cases(digits, **given)


def regression_samples(n=40):
    keys = tuple(f"k{i:02d}" for i in range(n))
    return Samples(torch.zeros(n, 1), torch.arange(n)[:, None].float(), ("price",), keys, target="values")


def test_without_classes_the_largest_losses_are_hard_and_half_of_them_are_held_out():
    of, losses = regression_samples(), torch.rand(40, generator=torch.Generator().manual_seed(1))
    cases = worst_cases(of, losses, most=3, share=0.25, seed=0)
    hard = {of.keys[i] for i in sorted(range(40), key=lambda i: -float(losses[i]))[:10]}
    assert len(cases.queries) == 3 and len(cases.held_out) == 7
    assert {*cases.queries.keys, *cases.held_out.keys} == hard and cases.classes == ("price",)
    more = worst_cases(of, losses, most=99, share=0.25, seed=0)
    assert len(more.queries) == 5 and more.queries.keys[:3] == cases.queries.keys
    assert worst_cases(of, losses, 3, 0.25, seed=1).queries.keys != cases.queries.keys


@pytest.mark.parametrize(
    ("losses", "given", "reason"),
    [
        (torch.zeros(40), {"share": 0.02}, "1 hard cases"),
        (torch.zeros(40), {"share": 0.0}, "above 0"),
        (torch.zeros(39), {}, "shape"),
        (torch.full((40,), torch.nan), {}, "not finite"),
    ],
)
def test_too_few_or_undefined_losses_are_refused(losses, given, reason):
    with pytest.raises(UserError, match=reason):
        worst_cases(regression_samples(), losses, most=3, **given)
