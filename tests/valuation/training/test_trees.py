import pytest
import torch
from sklearn.datasets import load_wine
from sklearn.tree import DecisionTreeClassifier

from lit_core.errors import UserError
from lit_valuation.samples import Samples
from lit_valuation.training.trees import SIZES, fit_trees


@pytest.fixture(scope="module")
def wine():
    data = load_wine()
    order = torch.randperm(178, generator=torch.Generator().manual_seed(0))
    x, y = torch.tensor(data.data, dtype=torch.float32)[order], torch.tensor(data.target)[order]
    return Samples(x, y, tuple(data.target_names), tuple(str(i) for i in order.tolist()))


def parts(samples):
    return samples.take(range(100)), samples.take(range(100, 140)), samples.take(range(140, 178))


@pytest.mark.parametrize("kind", SIZES)
def test_trees_learn_a_table(wine, kind):
    train, validation, test = parts(wine)
    trees = fit_trees(train, validation, kind)
    assert trees.accuracy(test) > 0.8 and trees.size in SIZES[kind]
    torch.testing.assert_close(trees.probabilities(test.x).sum(dim=1), torch.ones(len(test)))


def test_the_depth_is_the_best_on_validation_data_and_the_smallest_of_equals(wine):
    train, validation, _ = parts(wine)
    accuracy = {}
    for depth in (3, 5, 7, 10):
        model = DecisionTreeClassifier(max_depth=depth, random_state=4).fit(train.x, train.y)
        accuracy[depth] = model.score(validation.x, validation.y)
    best = next(depth for depth, value in accuracy.items() if value == max(accuracy.values()))
    trees = fit_trees(train, validation, seed=4)
    assert trees.size == {"max_depth": best} and trees.accuracy(validation) == max(accuracy.values())


def test_a_class_never_seen_has_no_probability(wine):
    train, validation, test = parts(wine)
    trees = fit_trees(train.of_classes(["class_0", "class_2"]), validation)
    probabilities = trees.probabilities(test.x)
    assert (probabilities[:, 1] == 0).all() and set(probabilities.argmax(dim=1).tolist()) == {0, 2}


def test_missing_values_are_allowed(wine):
    train, validation, test = parts(wine)
    train.x[::7, 2] = torch.nan
    assert fit_trees(train, validation).accuracy(test) > 0.7


def test_what_cannot_be(wine):
    train, validation, _ = parts(wine)
    with pytest.raises(UserError, match="validation has no samples"):
        fit_trees(train, validation.take([]))
    with pytest.raises(UserError, match="numbers the classes b"):
        fit_trees(train, validation.renumbered(["b", *train.classes]))


@pytest.mark.parametrize("kind", ["tree", "boosting"])
def test_a_whole_weight_is_that_many_copies(wine, kind):
    """Of trees that draw no bootstrap samples, and count no samples per leaf but in boosting."""
    train, validation, test = parts(wine)
    copies = torch.arange(100) % 3 + 1
    rows = torch.arange(100).repeat_interleave(copies)
    repeated = Samples(train.x[rows], train.y[rows], train.classes, tuple(str(i) for i in range(len(rows))))
    weighted = fit_trees(train, validation, kind, 1, weights=copies.float())
    if kind == "tree":
        copied = fit_trees(repeated, validation, kind, 1)
        assert weighted.size == copied.size
        torch.testing.assert_close(weighted.probabilities(test.x), copied.probabilities(test.x))
    else:
        plain = fit_trees(train, validation, kind, 1)
        assert not torch.equal(weighted.probabilities(test.x), plain.probabilities(test.x))
