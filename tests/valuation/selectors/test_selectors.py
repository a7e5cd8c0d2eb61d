"""What every selector keeps to, whatever it prefers."""

import inspect
import math
from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import auto_cli
from needed import needed_arguments
from sklearn.datasets import load_digits

import lit_valuation.selectors
from lit_core.errors import UserError
from lit_valuation.functional.gradients import last_layer_gradients
from lit_valuation.selectors import (
    FullInformation,
    FuncFeatSelector,
    GradientMatchingSelector,
    Pool,
    Selector,
    split_budget,
)

CONFIGS = Path(__file__).parents[3] / "configs" / "valuation" / "selector"
PATHS = sorted(CONFIGS.glob("*.yaml"))
PARTS = [getattr(lit_valuation.selectors, name) for name in lit_valuation.selectors.__all__]
CLASSES = [part for part in PARTS if inspect.isclass(part) and issubclass(part, Selector) and part is not Selector]
PARTIAL = [found for found in CLASSES if found is not FullInformation]
PURSUITS = (FuncFeatSelector, GradientMatchingSelector)
BUDGET = 24


def everything(rows, y):
    """A pool with all that a selector may need: the gradients of a linear model that has seen nothing."""
    logits = rows @ torch.linspace(-1, 1, rows.shape[1] * 10).reshape(rows.shape[1], 10).sin() * 0.1
    return Pool(y, rows, rows / rows.norm(dim=1, keepdim=True), last_layer_gradients(logits, rows, y))


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    x, y = torch.tensor(x, dtype=torch.float32) / 16, torch.tensor(y)
    asked = torch.cat([(y[1500:] == c).nonzero().squeeze(1)[:n] + 1500 for c, n in ((3, 6), (8, 2), (9, 1))])
    return everything(x[:600], y[:600]), everything(x[asked], y[asked])


def made(kind):
    """Return a selector of a class; needed arguments are those of its config."""
    return kind(**needed_arguments(kind, [yaml.safe_load(path.read_text())["selector"] for path in PATHS]))


def build(selector: Selector):
    return selector


def changed(pool, **fields):
    return Pool(**{**{name: getattr(pool, name) for name in ("y", "x", "features", "gradients")}, **fields})


def only(pool, indices):
    return Pool(pool.y[indices], pool.x[indices], pool.features[indices], pool.gradients.take(indices))


@pytest.mark.parametrize("kind", PARTIAL, ids=lambda kind: kind.__name__)
def test_budget_classes_and_prefixes(kind, digits):
    pool, queries = digits
    selection = made(kind).select(pool, queries, BUDGET, seed=3)
    indices = selection.indices.tolist()
    shares = split_budget(BUDGET, pool.y, queries.y)
    assert 0 < len(indices) <= BUDGET and len(set(indices)) == len(indices)
    for c in pool.y.unique().tolist():
        assert (pool.y[selection.indices] == c).sum() <= shares.get(c, 0)
    assert selection.weights.shape == selection.indices.shape and (selection.weights >= 0).all()
    assert all(math.isfinite(value) for value in selection.facts.values())
    again = made(kind).select(pool, queries, BUDGET, seed=3)
    assert torch.equal(again.indices, selection.indices) and torch.equal(again.weights, selection.weights)
    if kind in PURSUITS:  # may drop a sample for better ones
        return
    smaller = made(kind).select(pool, queries, BUDGET // 2, seed=3).indices.tolist()
    for c in shares:
        of_class = [i for i in indices if pool.y[i] == c]
        nested = [i for i in smaller if pool.y[i] == c]
        assert nested == of_class[: len(nested)]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_more_budget_than_samples_takes_no_sample_twice(kind, digits):
    pool, queries = digits
    pool = only(pool, torch.arange(40))
    indices = made(kind).select(pool, queries, 10_000).indices.tolist()
    assert len(set(indices)) == len(indices) <= int(torch.isin(pool.y, queries.y).sum())
    assert set(pool.y[indices].tolist()) <= set(queries.y.tolist())


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_pools_with_the_needed_fields_alone_give_the_same_selection(kind, digits):
    pools = only(digits[0], torch.arange(60)), digits[1]
    needed = [Pool(pool.y, **{need: getattr(pool, need) for need in kind.needs}) for pool in pools]
    alone, whole = (made(kind).select(*given, 60, seed=3) for given in (needed, pools))
    assert torch.equal(alone.indices, whole.indices) and torch.equal(alone.weights, whole.weights)


def test_needed_arguments_are_those_of_the_config():
    class Wanting:
        def __init__(self, first, second, third=3):
            pass

    described = [{"class_path": "lit.Other"}, {"class_path": "lit.Wanting", "init_args": {"second": 2, "third": 4}}]
    assert needed_arguments(Wanting, described, given=1) == {"second": 2}


@pytest.mark.parametrize("needs", [{}, {"needs": frozenset({"feature"})}, {"needs": "x"}, {"needs": None}])
def test_a_class_whose_needs_are_missing_or_misspelt_is_refused(needs):
    def select(self, pool, queries, budget, seed=0):
        raise NotImplementedError

    with pytest.raises(TypeError, match=r"Wrong.needs is .* a set of names among x, features, gradients"):
        type("Wrong", (Selector,), {"select": select, **needs})
    type("Base", (Selector,), {})  # without `select` it is abstract


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_what_cannot_be_is_one_sentence(kind, digits):
    pool, queries = digits
    with pytest.raises(UserError, match="budget is 0"):
        made(kind).select(pool, queries, 0)
    for nothing in (only(pool, torch.arange(0)), only(pool, (pool.y == 1).nonzero().squeeze(1))):
        with pytest.raises(UserError) as caught:
            made(kind).select(nothing, queries, 4)
        assert "\n" not in str(caught.value)
    for need in sorted(kind.needs & {"x", "features"}):
        with pytest.raises(UserError, match=rf"{need} .*width"):
            made(kind).select(pool, changed(queries, **{need: getattr(queries, need)[:, :5]}), 4)
        with pytest.raises(UserError, match=f"without {need}"):
            made(kind).select(changed(pool, **{need: None}), queries, 4)
        spoilt = getattr(pool, need).clone()
        spoilt[int((pool.y == 3).nonzero()[0])] = torch.nan
        with pytest.raises(UserError, match="not finite"):
            made(kind).select(changed(pool, **{need: spoilt}), queries, 4)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_config_builds_its_selector(path):
    named = yaml.safe_load(path.read_text())["selector"]["class_path"]
    built = auto_cli(build, as_positional=False, args=["--config", str(path)])
    assert type(built).__name__ == named.rpartition(".")[2]
