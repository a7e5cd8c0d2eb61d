import itertools
import math

import pytest
import torch
from sklearn.datasets import load_digits

from lit_core.errors import UserError
from lit_valuation.functional import knn_shapley as module
from lit_valuation.functional.knn_shapley import knn_shapley


@pytest.fixture(scope="module")
def digits():
    x, y = load_digits(return_X_y=True)
    return torch.tensor(x), torch.tensor(y) % 3


def worth(members, distances, match, k):
    return sum(match[i] for i in sorted(members, key=lambda i: (distances[i], i))[:k]) / k


def by_enumeration(pool, pool_y, query, query_y, k):
    """Shapley's formula over all coalitions."""
    n = len(pool)
    distances = (pool - query).norm(dim=1).tolist()
    match = (pool_y == query_y).tolist()
    values = [0.0] * n
    for size in range(n):
        weight = 1 / (n * math.comb(n - 1, size))
        for i in range(n):
            for others in itertools.combinations([j for j in range(n) if j != i], size):
                gain = worth((*others, i), distances, match, k) - worth(others, distances, match, k)
                values[i] += weight * gain
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("k", [1, 3, 7, 9])  # 9: more neighbours than samples
def test_the_closed_form_is_the_shapley_value(digits, k):
    x, y = digits
    pool, pool_y, queries, query_y = x[:7], y[:7], x[50:54], y[50:54]
    expected = sum(by_enumeration(pool, pool_y, q, c, k) for q, c in zip(queries, query_y, strict=True)) / 4
    torch.testing.assert_close(knn_shapley(pool, pool_y, queries, query_y, k), expected, atol=1e-12, rtol=0)


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
