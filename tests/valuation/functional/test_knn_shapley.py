import itertools
import math

import pytest
import torch
from sklearn.datasets import load_digits

from lit_core.errors import UserError
from lit_valuation.functional import knn_shapley as module
from lit_valuation.functional.knn_shapley import knn_shapley, knn_shapley_of_values
from lit_valuation.selectors import KNNShapleySelector, Pool


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    return torch.tensor(x), torch.tensor(y) % 3


def shapley(worth, n):
    """Shapley's formula over all coalitions of n players."""
    values = [0.0] * n
    for size in range(n):
        weight = 1 / (n * math.comb(n - 1, size))
        for i in range(n):
            for others in itertools.combinations([j for j in range(n) if j != i], size):
                values[i] += weight * (worth((*others, i)) - worth(others))
    return torch.tensor(values, dtype=torch.float64)


def nearest(pool, query, k):
    """Return a function of members that returns the k nearest to the query."""
    distances = (pool - query).norm(dim=1).tolist()
    return lambda members: sorted(members, key=lambda i: (distances[i], i))[:k]


def by_enumeration(pool, pool_y, query, query_y, k):
    match, of = (pool_y == query_y).tolist(), nearest(pool, query, k)
    return shapley(lambda members: sum(match[i] for i in of(members)) / k, len(pool))


def regression_by_enumeration(pool, pool_y, query, query_y, k):
    """The utility as Jia et al. define it for regression, summed over the columns."""
    of = nearest(pool, query, k)

    def worth(members):
        predicted = sum((pool_y[i] for i in of(members)), torch.zeros_like(query_y)) / k
        return -float((predicted - query_y).square().sum())

    return shapley(worth, len(pool))


@pytest.mark.parametrize("k", [1, 3, 7, 9])  # 9: more neighbours than samples
def test_the_closed_form_is_the_shapley_value(digits, k):
    x, y = digits
    pool, pool_y, queries, query_y = x[:7], y[:7], x[50:54], y[50:54]
    expected = sum(by_enumeration(pool, pool_y, q, c, k) for q, c in zip(queries, query_y, strict=True)) / 4
    torch.testing.assert_close(knn_shapley(pool, pool_y, queries, query_y, k), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("k", [1, 3, 9])
@pytest.mark.parametrize("n", [1, 2, 6])
def test_the_closed_form_of_regression_is_the_shapley_value(digits, n, k):
    x, _ = digits
    targets = torch.randn(60, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
    pool, pool_y, queries, query_y = x[:n], targets[:n], x[50:53], targets[50:53]
    each = [regression_by_enumeration(pool, pool_y, q, t, k) for q, t in zip(queries, query_y, strict=True)]
    found = knn_shapley_of_values(pool, pool_y, queries, query_y, k)
    torch.testing.assert_close(found, sum(each) / 3, atol=1e-12, rtol=0)


def test_the_value_by_labels_is_the_mean_over_the_labels(digits):
    x, y = digits
    labels = torch.stack([y == 0, y > 0, y == 2], dim=1).float()
    whole = knn_shapley(x[:30], labels[:30], x[50:54], labels[50:54], 3)
    each = [knn_shapley(x[:30], labels[:30, c].long(), x[50:54], labels[50:54, c].long(), 3) for c in range(3)]
    torch.testing.assert_close(whole, sum(each) / 3, atol=1e-12, rtol=0)


def test_regression_keeps_its_values_in_blocks_and_where_columns_are_far_from_0(digits, monkeypatch):
    x, y = digits
    y = torch.stack([y - 1.0, (y - 1.0) ** 2], dim=1)
    arguments = y[:200], x[500:520], y[500:520], 5
    whole = knn_shapley_of_values(x[:200], *arguments)
    near = torch.cdist(x[500:520], x[:200]).argsort(dim=1)[:, :5]
    gain = y[500:520].square().sum(1) - (y[near].mean(1) - y[500:520]).square().sum(1)
    assert whole.sum() == pytest.approx(float(gain.mean()))
    monkeypatch.setattr(module, "_BLOCK", 1500)
    torch.testing.assert_close(knn_shapley_of_values(x[:200], *arguments), whole, atol=1e-12, rtol=0)
    far = knn_shapley_of_values(x[:200] + 2.0**40, y[:200], x[500:520] + 2.0**40, *arguments[2:])
    torch.testing.assert_close(far, whole, atol=1e-12, rtol=0)


def test_a_selector_takes_samples_whose_numbers_and_labels_fit_the_queries():
    places = torch.tensor([[0.0], [0.1], [0.2], [5.0]])
    queries = Pool(torch.zeros(1).long(), features=places[:1], values=torch.tensor([[900.0]]), target="values")
    numbers = torch.tensor([[100.0], [905.0], [880.0], [900.0]])  # the nearest has another number
    pool = Pool(torch.zeros(4).long(), features=places, values=numbers, target="values")
    assert KNNShapleySelector(k=1).select(pool, queries, 4).indices.tolist() == [1, 3, 2, 0]
    scaled = Pool(pool.y, features=places, values=numbers * 1e6 + 7, target="values")
    asked = Pool(queries.y, features=places[:1], values=queries.values * 1e6 + 7, target="values")
    assert KNNShapleySelector(k=1).select(scaled, asked, 4).indices.tolist() == [1, 3, 2, 0]
    labels = torch.tensor([[1.0, 1], [0, 1], [0, 0], [0, 1]])
    pool = Pool(pool.y, features=places, values=labels, target="labels")
    asked = Pool(queries.y, features=places[:1], values=labels[1:2], target="labels")
    assert KNNShapleySelector(k=1).select(pool, asked, 1).indices.tolist() == [1]


def test_blocks_do_not_show_and_values_sum_to_what_the_pool_is_worth(digits, monkeypatch):
    x, y = digits
    arguments = x[:500], y[:500], x[500:560], y[500:560], 5
    whole = knn_shapley(*arguments)
    monkeypatch.setattr(module, "_BLOCK", 3500)
    torch.testing.assert_close(knn_shapley(*arguments), whole, atol=1e-12, rtol=0)
    near = torch.cdist(x[500:560], x[:500]).argsort(dim=1)[:, :5]
    assert whole.sum() == pytest.approx(float((y[near] == y[500:560, None]).double().mean()))


def test_what_cannot_be(digits):
    x, y = digits
    with pytest.raises(UserError, match="k is 0"):
        knn_shapley(x[:5], y[:5], x[5:6], y[5:6], 0)
    with pytest.raises(UserError, match="empty"):
        knn_shapley(x[:0], y[:0], x[5:6], y[5:6])
