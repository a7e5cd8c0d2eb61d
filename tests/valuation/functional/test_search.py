import importlib.util

import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestNeighbors

from lit_core.errors import UserError
from lit_valuation.functional import search
from lit_valuation.functional.search import borda_order, nearest, settle_claims, veto_order

BACKENDS = [
    "exact",
    pytest.param("faiss", marks=pytest.mark.skipif(not importlib.util.find_spec("faiss"), reason="needs faiss-cpu")),
]


@pytest.fixture(scope="module")
def rows():
    return torch.tensor(load_digits().data, dtype=torch.float32) / 16


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("blocks", [(256, 8192), (7, 100)])
def test_the_same_neighbours_as_scikit_learn(rows, backend, blocks, monkeypatch):
    monkeypatch.setattr(search, "_QUERIES", blocks[0])
    monkeypatch.setattr(search, "_POOL", blocks[1])
    monkeypatch.setattr(search, "_REMEASURED", 50_000)
    queries, pool = rows[:40], rows[40:]
    distances, numbers = nearest(queries, pool, 25, backend)
    theirs, their_numbers = NearestNeighbors(n_neighbors=25, algorithm="brute").fit(pool).kneighbors(queries)
    torch.testing.assert_close(distances, torch.tensor(theirs, dtype=torch.float32), atol=1e-5, rtol=1e-5)
    same = torch.tensor(theirs).diff(dim=1).abs() > 1e-6  # no tie on either side
    same = torch.nn.functional.pad(same, (1, 0), value=True) & torch.nn.functional.pad(same, (0, 1), value=False)
    assert same.float().mean() > 0.9 and torch.equal(numbers[same], torch.tensor(their_numbers)[same])


@pytest.mark.parametrize("backend", BACKENDS)
def test_of_equals_the_lower_number_comes_first(rows, backend):
    pool = rows[:300].repeat(6, 1)[torch.randperm(1800, generator=torch.Generator().manual_seed(0))]
    distances, numbers = nearest(rows[300:330], pool, 18, backend)
    measured = torch.cdist(rows[300:330].double(), pool.double(), compute_mode="donot_use_mm_for_euclid_dist").float()
    for row, (got, expected) in enumerate(zip(numbers, measured, strict=True)):
        assert got.tolist() == expected.argsort(stable=True)[:18].tolist(), row
    assert (nearest(pool[:5], pool, 1)[0] == 0).all() and (distances.diff(dim=1) >= 0).all()


def test_memory_does_not_grow_with_the_pool(rows, monkeypatch):
    """No matrix is larger than a block of the pool, however many queries and samples there are."""
    monkeypatch.setattr(search, "_QUERIES", 16)
    monkeypatch.setattr(search, "_POOL", 64)
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor) and out._base is None:
                largest = max(largest, out.numel())
            return out

    queries, pool = rows[:50], rows
    with Watch():
        list(search._by_products(queries, pool, 4))
    assert largest <= 64 * rows.shape[1]


def test_k_widths_and_numbers_that_cannot_be(rows):
    for k in (0, 11):
        with pytest.raises(UserError, match=f"k is {k}, but must be from 1 to the 10"):
            nearest(rows[:2], rows[:10], k)
    with pytest.raises(UserError, match="one width"):
        nearest(rows[:2, :3], rows[:10], 1)
    spoilt = rows[:10].clone()
    spoilt[4, 2] = torch.inf
    with pytest.raises(UserError, match="sample 4 of the pool are not finite"):
        nearest(rows[:2], spoilt, 1)


def naive_veto(distances, numbers, allowed):
    survivors = [
        [(distances[q][r], numbers[q][r]) for r in range(len(numbers[q])) if allowed[q][r]] for q in range(len(numbers))
    ]
    named = []
    for turn in range(max(map(len, survivors))):
        for _, _, number in sorted((s[turn][0], q, s[turn][1]) for q, s in enumerate(survivors) if turn < len(s)):
            if number not in named:
                named.append(number)
    return named


def naive_borda(numbers, allowed):
    points = {}
    for row, mask in zip(numbers, allowed, strict=True):
        preferences = [number for number, ok in zip(row, mask, strict=True) if ok]
        for rank, number in enumerate(preferences):
            points[number] = points.get(number, 0) + len(preferences) - 1 - rank
    return sorted(points, key=lambda number: (-points[number], number))


def test_votes_against_loops(rows):
    distances, numbers = nearest(rows[:12], rows[12:400], 30)
    y = torch.tensor(load_digits().target)
    for allowed in (y[12:400][numbers] == y[:12, None], torch.ones_like(numbers, dtype=torch.bool)):
        lists = numbers.tolist(), allowed.tolist()
        assert veto_order(distances, numbers, allowed).tolist() == naive_veto(distances.tolist(), *lists)
        assert borda_order(numbers, allowed).tolist() == naive_borda(*lists)


def test_each_query_is_covered_first(rows):
    distances, numbers = nearest(rows[:9], rows[9:], 10)
    first = veto_order(distances, numbers, torch.ones_like(numbers, dtype=torch.bool))[:9].tolist()
    assert set(numbers[:, 0].tolist()) <= set(first)


def test_a_contested_sample_goes_where_it_ranks_best():
    settled = settle_claims({1: torch.tensor([5, 6, 7]), 4: torch.tensor([7, 6, 8]), 2: torch.tensor([8])})
    assert {c: order.tolist() for c, order in settled.items()} == {1: [5, 6], 4: [7], 2: [8]}
