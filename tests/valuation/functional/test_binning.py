import math

import pytest
import torch
from sklearn.datasets import load_wine

from lit_core.errors import UserError
from lit_valuation.functional.binning import best_width, binning_distance
from lit_valuation.selectors import BinningSelector, Pool


@pytest.fixture(scope="module")
def wine():
    x, y = load_wine(return_X_y=True)
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y)


def naive_best(column):
    extent = max(column) - min(column)
    for count in (200, 100, 50, 20, 10, 5):
        if extent and len({math.floor((v - min(column)) / (extent / count)) for v in column}) <= 6:
            return extent / count
    return 0.0


def naive(rows, queries, bins):
    """Row by row, query by query."""
    total = [0] * len(rows)
    for f in range(len(rows[0])):
        column, asked = [row[f] for row in rows], [query[f] for query in queries]
        owned, wanted = max(column) - min(column), max(asked) - min(asked)
        width = naive_best(column)
        if bins == "queries" and wanted and owned:
            width = naive_best(asked) if owned / wanted <= 5 else wanted if owned / wanted <= 50 else width
        for i, value in enumerate(column):
            if width:
                mine = math.floor((value - min(column)) / width)
                total[i] += min(abs(mine - math.floor((q - min(column)) / width)) for q in asked)
    return total


@pytest.mark.parametrize("bins", ["owner", "queries"])
@pytest.mark.parametrize("asked", [slice(60, 66), slice(60, 62), slice(150, 151)])
def test_against_a_loop(wine, bins, asked):
    x = wine[0].double()
    x = torch.cat([x, torch.full((len(x), 1), 3.0), x[:, :1] * 1e6], dim=1)  # a column without range, a large one
    rows, queries = x[:50], x[asked]
    got = binning_distance(rows, queries, bins)
    assert got.tolist() == naive(rows.tolist(), queries.tolist(), bins)
    assert got.unique().numel() > 5


def test_the_three_rules_of_the_bins():
    rows = torch.linspace(0, 100, 101)[:, None]
    near = torch.tensor([[10.0], [30.0], [50.0]])  # range 40: at most 5 times narrower, best bins 40 / 200
    assert binning_distance(rows, near)[[10, 11, 20]].tolist() == [0, 5, 50]
    narrow = torch.tensor([[10.0], [14.0]])  # range 4: 25 times narrower, bins of 4
    assert binning_distance(rows, narrow)[[10, 11, 12, 16, 20]].tolist() == [0, 0, 0, 1, 2]
    for tiny in (torch.tensor([[10.0], [10.5]]), torch.tensor([[10.0]])):  # the owner's own: 5 bins
        assert binning_distance(rows, tiny)[[0, 19, 20, 99]].tolist() == [0, 0, 1, 4]
    assert best_width(rows[:, 0]) == 20 and best_width(torch.tensor([2.0, 2.0])) == 0


def test_columns_and_values_that_cannot_be(wine):
    x, _ = wine
    with pytest.raises(UserError, match="one width"):
        binning_distance(x[:5], x[:2, :3])
    with pytest.raises(UserError, match="sample 1 of the queries are not finite"):
        binning_distance(x[:5], torch.stack([x[6], x[7] * torch.nan]))


def select(wine, budget, **arguments):
    x, y = wine
    pool, queries = Pool(y[4:], x[4:]), Pool(y[:4], x[:4])
    mine = (pool.y == 0).nonzero().squeeze(1)
    distance = torch.full((len(pool),), -1).scatter(0, mine, binning_distance(pool.x[mine], queries.x))
    return BinningSelector(**arguments).select(pool, queries, budget, seed=1).indices, distance


def test_the_nearest_rows_are_taken_and_ties_are_drawn(wine):
    chosen, distance = select(wine, 10)
    assert distance[chosen].tolist() == sorted(distance[distance >= 0].tolist())[:10]
    x, y = wine
    same = Pool(y[:50] * 0, x[:1].repeat(50, 1))
    drawn = {tuple(BinningSelector().select(same, same, 5, seed=seed).indices.tolist()) for seed in range(4)}
    assert len(drawn) == 4


def test_only_the_smallest_distance_and_random_rows_as_many(wine):
    chosen, distance = select(wine, 50, share="minimum")
    least = distance[distance >= 0].min()
    assert set(chosen.tolist()) == set((distance == least).nonzero().squeeze(1).tolist())
    drawn, _ = select(wine, 50, share="random")
    assert len(drawn) == len(chosen) and (distance[drawn] >= 0).all()


def test_diverse_rows_come_from_the_most_frequent_other_distances(wine):
    chosen, distance = select(wine, 8, diverse=3)
    mine = distance[distance >= 0]
    values, counts = mine[mine > mine.min()].unique(return_counts=True)
    least = sorted(counts.tolist(), reverse=True)[:5][-1]
    frequent = set(values[counts >= least].tolist())
    diverse = chosen[1:6:2]
    assert set(distance[diverse].tolist()) <= frequent
    near = [i for i in chosen.tolist() if i not in diverse.tolist()]
    assert len(near) == 5 and distance[near].tolist() == sorted(distance[near].tolist())
