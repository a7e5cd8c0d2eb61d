"""Distances are right where a column's mean is far above its spread: every place that measures them, found by code."""

import ast
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch.nn.functional import normalize

import lit_valuation
from lit_valuation.data.copies import CopyFinder
from lit_valuation.encoders import Identity
from lit_valuation.functional.binning import binning_distance
from lit_valuation.functional.coresets import facility_location_mi, k_center
from lit_valuation.functional.k_means import k_means, lloyd
from lit_valuation.functional.knn_shapley import knn_shapley
from lit_valuation.functional.linear_head import fit_linear_head
from lit_valuation.functional.median import geometric_median, psi
from lit_valuation.functional.search import nearest
from lit_valuation.samples import Samples
from lit_valuation.selectors import FeatureSimilaritySelector, Pool

#: Calls and operators that a distance, a length or a product of rows is made of.
_DISTANCES = {"cdist", "addmm", "vector_norm", "normalize", "norm", "cosine_similarity", "pairwise_distance"}
#: What has them but measures no distance of samples by values that may be offset, with the reason.
_OTHERS = {
    "functional/active_set.py": "products of gradients",
    "functional/atoms.py": "products of gradients",
    "functional/gradients.py": "products of gradients",
    "functional/losses.py": "distances of outputs from targets, by differences",
    "functional/pursuit_problem.py": "products of gradients",
    "exchange/mass_choice.py": "a weighted sum of scores",
    "exchange/probe.py": "outputs of a linear head, lengths of gradients",
    "exchange/proxy_scores.py": "lengths of gradients",
    "callbacks/coreset.py": "lengths of gradients",
    "encoders/base.py": "scales features to length 1, row by row",
    "exchange/parties.py": "normalises names",
    "data/class_map.py": "normalises names",
    "samples.py": "normalises names",
    "functional/token_gradients.py": "products of gradients",
    "selectors/func_feat.py": "scales features to length 1, row by row",
    "selectors/matching.py": "lengths of gradients",
    "metrics.py": "errors of outputs, and squares of targets in training deviations from their training mean",
}


def digits(offset, dtype=torch.float32):
    """Return 700 digits, standard deviation about 1, moved far away, and the same rows in place, in float64."""
    rows = torch.tensor(load_digits().data[:700]) / 4 + torch.arange(700)[:, None] % 3 / 64  # fewer ties
    moved = (rows + offset).to(dtype)
    return moved, moved.double() - offset


def by_differences(queries, pool):
    return torch.cdist(queries, pool, compute_mode="donot_use_mm_for_euclid_dist")


def agree(found, exact, k):
    """Whether the k found are as near as the k nearest, and in order, but for differences that float32 cannot hold."""
    torch.testing.assert_close(exact.gather(1, found), exact.sort(dim=1).values[:, :k], rtol=1e-6, atol=0)


BACKENDS = ["exact", *(["faiss"] if importlib.util.find_spec("faiss") else [])]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("offset", "dtype"), [(10_000, torch.float32), (-1e6, torch.float32), (1e11, torch.float64)])
def test_neighbours(offset, dtype, backend):
    moved, rows = digits(offset, dtype)
    distances, found = nearest(moved[:60], moved[60:], 10, backend)
    exact = by_differences(rows[:60], rows[60:])
    agree(found, exact, 10)
    torch.testing.assert_close(distances.double(), exact.sort(dim=1).values[:, :10], rtol=1e-5, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_neighbours_in_groups_that_no_centre_serves(backend):
    """Two thirds lie far on either side, so that the rows are far from their mean."""
    sides = (torch.arange(700) % 3 - 1)[:, None] * 30_000
    moved, rows = digits(sides)
    moved = (rows + sides).float()
    _, found = nearest(moved[:60], moved[60:], 10, backend)
    agree(found, by_differences(moved[:60].double(), moved[60:].double()), 10)


@pytest.mark.parametrize("backend", BACKENDS)
def test_neighbours_with_an_outlier_and_many_equal_rows(backend):
    moved, _ = digits(0)
    moved[100] = 1e6
    moved[200:400] = moved[200]
    moved[0] = moved[200]
    _, found = nearest(moved[:60], moved[60:], 30, backend)
    agree(found, by_differences(moved[:60].double(), moved[60:].double()), 30)
    assert found[0].tolist() == list(range(140, 170))  # equal ones by index


def test_whatever_precision_products_have():
    before = torch.get_float32_matmul_precision()
    moved, rows = digits(100)
    try:
        torch.set_float32_matmul_precision("medium")
        _, found = nearest(moved[:60], moved[60:], 10)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    agree(found, by_differences(rows[:60], rows[60:]), 10)


def test_the_selected_samples():
    moved, rows = digits(10_000)
    y = torch.tensor(load_digits().target[:700])
    chosen = FeatureSimilaritySelector().select(
        Pool(y[60:], features=moved[60:]), Pool(y[:60], features=moved[:60]), 40
    )
    expected = FeatureSimilaritySelector().select(
        Pool(y[60:], features=rows[60:]), Pool(y[:60], features=rows[:60]), 40
    )
    assert chosen.indices.tolist() == expected.indices.tolist()


@pytest.mark.parametrize("sides", [1e9, torch.tensor([-1e5, 0.0, 1e5]).repeat(234)[:700, None].double()])
def test_shapley_values(sides):
    """Many distances are equal: all numbers are multiples of 1/64, and their squares are exact in float64."""
    moved, _ = digits(sides, torch.float64)
    pool, queries, y = moved[20:400], moved[:20], torch.tensor(load_digits().target[:400])
    order = (pool - queries[:, None]).square().sum(2).argsort(dim=1, stable=True)
    match = (y[20:][order] == y[:20, None]).double()
    rank = torch.arange(1, 381, dtype=torch.float64)
    step = rank.clamp(max=5) / (5 * rank)
    ranked = match * step  # Jia et al., Theorem 1, from the farthest on
    for i in reversed(range(379)):
        ranked[:, i] = ranked[:, i + 1] + (match[:, i] - match[:, i + 1]) * step[i]
    values = torch.zeros(380, dtype=torch.float64).index_add_(0, order.flatten(), ranked.flatten() / 20)
    torch.testing.assert_close(knn_shapley(pool, y[20:], queries, y[:20]), values, atol=1e-12, rtol=0)


def test_clusters():
    moved, rows = digits(1e9, torch.float64)
    assert torch.equal(k_means(moved, 8, seed=0, restarts=2), k_means(rows, 8, seed=0, restarts=2))
    assert torch.equal(lloyd(moved, moved[:8])[0], lloyd(rows, rows[:8])[0])


def test_a_linear_head():
    moved, rows = digits(10_000)
    y = torch.tensor(load_digits().target[:60])
    (weight, bias), (expected, shift) = (fit_linear_head(part[:60, :12], y, 10) for part in (moved, rows))
    torch.testing.assert_close(weight, expected, atol=1e-5, rtol=1e-4)
    logits, wanted = (part[:60, :12].double() @ weight.double().T for part in (moved, rows))
    wanted = (wanted + shift).softmax(1)
    torch.testing.assert_close((logits + bias.double()).softmax(1), wanted, atol=1e-2, rtol=0)  # float32 weights


def test_centres():
    moved, rows = digits(1e9, torch.float64)
    assert k_center(moved, 30)[0].tolist() == k_center(rows, 30)[0].tolist()


@pytest.mark.parametrize("variant", ["queries", "pool"])
def test_what_represents(variant):
    moved, _ = digits(10_000)
    pool, queries = moved[60:260], moved[:20]

    def unit(part):
        wide = part.numpy().astype(np.longdouble)
        return wide / np.sqrt((wide**2).sum(1, keepdims=True))

    to_queries, within = unit(pool) @ unit(queries).T, unit(pool) @ unit(pool).T

    def information(taken):
        if variant == "queries":
            return to_queries[taken].max(0).sum() + to_queries[taken].max(1).sum()
        return np.minimum(within[taken].max(0), to_queries.max(1)).sum()

    chosen, _ = facility_location_mi(pool, queries, 8, variant)
    taken: list[int] = []
    for index in chosen.tolist():
        best = max(information([*taken, other]) for other in range(200) if other not in taken)
        taken.append(index)
        assert best - information(taken) < 1e-12


def test_psi():
    moved, _ = digits(10_000)
    median = geometric_median(normalize(moved[:20].double(), dim=1)).float()
    wide = moved.numpy().astype(np.longdouble)
    wide /= np.sqrt((wide**2).sum(1, keepdims=True))
    other = median.numpy().astype(np.longdouble)
    other /= np.sqrt((other**2).sum())
    expected = torch.tensor(np.sqrt(((wide - other) ** 2).sum(1)).astype(np.float64))
    torch.testing.assert_close(psi(moved, median).double(), expected, rtol=1e-6, atol=0)


def test_bins():
    moved, rows = digits(10_000)
    assert torch.equal(binning_distance(moved[60:], moved[:60]), binning_distance(rows[60:], rows[:60]))


@pytest.mark.parametrize("encoder", [None, Identity()])
def test_copies(encoder):
    moved, rows = digits(10_000)
    scale = rows[60:500].std(0)
    scale[scale == 0] = 1
    noise = 0.05 * scale * torch.randn(60, 64, generator=torch.Generator().manual_seed(0))
    sets = [
        Samples(x, torch.zeros(len(x), dtype=torch.int64), ("any",), tuple(map(str, range(len(x)))))
        for x in (moved[:60], moved[60:500], torch.cat([(moved[:60].double() + noise).float(), moved[500:]]))
    ]
    finder = CopyFinder(sets[1], sets[0], 0.25, encoder)
    exact = by_differences(rows[:60] / scale, rows[60:500] / scale)
    wanted = by_differences((sets[2].x.double() - 10_000) / scale, rows[:60] / scale).amin(1)
    found = finder.all(finder.prepare(sets[2]), finder.prepare(sets[0]))
    assert found[:60].all() and not found[60:].any()
    limit = 0.25 * exact.amin(1).median()
    assert wanted[:60].max() < 0.9 * limit and wanted[60:].min() > 1.1 * limit, (
        "the rounding of the data decides nothing"
    )


def test_every_place_that_measures_is_tried_here():
    root = Path(lit_valuation.__file__).parent
    measuring = set()
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            called = isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", ""))
            squared = called == "sum" and "square" in ast.dump(node.func)
            product = isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult)
            if called in _DISTANCES or squared or product:
                measuring.add(path.relative_to(root).as_posix())
    others = {name for name in measuring if name.startswith(tuple(_OTHERS))}
    assert all(any(name.startswith(other) for name in others) for other in _OTHERS), "a reason for nothing"
    tried = {"search", "knn_shapley", "coresets", "median", "near_index", "k_means", "linear_head"}
    tried_files = {f"functional/{name}.py" for name in tried} | {"data/copies.py"}
    assert measuring - others == tried_files
