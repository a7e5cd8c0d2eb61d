import pytest
import torch
from sklearn.datasets import load_digits

from lit_valuation.functional import near_index
from lit_valuation.functional.near_index import NearIndex


def measured(queries, rows):
    return torch.cdist(queries, rows, compute_mode="donot_use_mm_for_euclid_dist")


@pytest.fixture(scope="module")
def digits():
    rows = torch.tensor(load_digits().data)
    rows[900:1000] = rows[100:200] + 0.3 * torch.randn(100, 64, generator=torch.Generator().manual_seed(0)).double()
    rows[1000:1020] = rows[100]
    return rows


def agrees(queries, rows, distances):
    index, exact = NearIndex(lambda indices: rows[indices], len(rows)), measured(queries, rows)
    for distance in distances:
        found = torch.zeros_like(exact, dtype=torch.bool)
        found[index.within(queries, distance)] = True
        assert torch.equal(found, exact < distance)
    others = exact.masked_fill(exact == 0, torch.inf).amin(1)
    torch.testing.assert_close(index.nearest_other(queries), others, rtol=1e-12, atol=0)


@pytest.mark.parametrize("numbers", [near_index._NUMBERS, 5_000])
@pytest.mark.parametrize("offset", [0, 1e7])
def test_what_measuring_everything_finds(digits, numbers, offset, monkeypatch):
    monkeypatch.setattr(near_index, "_NUMBERS", numbers)
    distances = [0.0, 1e-6, 2.0, 10.0, 30.0]
    agrees(digits[:200] + offset, digits[200:] + offset, distances)
    agrees(digits[100:120] + offset, digits + offset, distances)


@pytest.mark.parametrize("shape", [(1, 1), (1, 64), (3, 1), (40, 2), (50, 500)])
def test_few_rows_and_columns(shape):
    rows = torch.randn(shape, generator=torch.Generator().manual_seed(1)).double()
    agrees(torch.cat([rows, rows + 0.1]), rows, [0.0, 0.05, 0.5, 5.0])
    agrees(rows.zero_(), rows, [0.0, 1.0])


def test_only_a_block_of_rows_is_in_memory_and_few_are_measured(digits, monkeypatch):
    monkeypatch.setattr(near_index, "_NUMBERS", 64 * 50)
    asked = []

    def rows(indices):
        asked.append(len(indices))
        return digits[indices]

    index = NearIndex(rows, len(digits))
    assert max(asked) <= 50 and index._coordinates_NK.shape == (len(digits), 33)
    asked.clear()
    index.within(digits[:200], 5.0)
    assert 200 <= sum(asked) < 0.01 * 200 * len(digits) and max(asked) <= 50
