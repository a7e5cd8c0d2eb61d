"""Nearest neighbours beside faiss and scikit-learn, KNN-Shapley beside pyDVL: equal results first, then times.

    python benchmarks/features.py --output docs/results/features.json

writes the page features.md beside the numbers. A library that is not installed is left out with a note.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from report import conditions
from side_by_side import Contender, OtherWork, arguments, cell, finish, markdown, measure, new_result, progress, ratios
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from torch import Tensor

from lit_core.files.paths import atomic_write
from lit_valuation.functional.knn_shapley import knn_shapley
from lit_valuation.functional.search import nearest

OURS, OURS_FAISS, FAISS, SKLEARN = "ours, exact", "ours, faiss", "faiss", "scikit-learn"
PYDVL = "pyDVL"
PEERS = {OURS_FAISS: "faiss", FAISS: "faiss", PYDVL: "pydvl"}  # the module that each needs
NEIGHBOURS = 5


class Mismatch(Exception):
    """A contender does not compute what ours does."""


@dataclass(frozen=True)
class Search:
    """A search: queries, samples of the pool, width, neighbours."""

    queries: int
    pool: int
    width: int
    k: int


@dataclass(frozen=True)
class Values:
    """A valuation: what of, queries, samples of the pool, width."""

    data: str
    queries: int
    pool: int
    width: int


SEARCHES = (Search(40, 10_000, 1280, 10), Search(40, 60_000, 1280, 200), Search(500, 60_000, 384, 10))
VALUES = (Values("digits", 200, 1_500, 64), Values("random", 100, 20_000, 64))


def unit_rows(count: int, width: int) -> Tensor:
    """Draw random features of unit length."""
    return torch.nn.functional.normalize(torch.randn(count, width), dim=1)


def installed(names: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Split contenders into those that can run, and those that cannot with the reason."""
    missing = {name: PEERS[name] for name in names if name in PEERS and not importlib.util.find_spec(PEERS[name])}
    return [name for name in names if name not in missing], {
        name: f"{module} is not installed" for name, module in missing.items()
    }


def searches() -> dict[str, Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]]:
    """Return the ways to find distances and numbers of the neighbours, by name."""

    def faiss(queries: Tensor, pool: Tensor, k: int) -> tuple[Tensor, Tensor]:
        import faiss

        index = faiss.IndexFlatL2(pool.shape[1])
        index.add(pool.numpy())
        squared, numbers = index.search(queries.numpy(), k)
        return torch.from_numpy(squared).clamp(min=0).sqrt(), torch.from_numpy(numbers)

    def scikit_learn(queries: Tensor, pool: Tensor, k: int) -> tuple[Tensor, Tensor]:
        found = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(pool.numpy()).kneighbors(queries.numpy())
        return torch.from_numpy(found[0]), torch.from_numpy(found[1])

    return {
        OURS: nearest,
        OURS_FAISS: lambda queries, pool, k: nearest(queries, pool, k, "faiss"),
        FAISS: faiss,
        SKLEARN: scikit_learn,
    }


def run_search(case: Search, rounds: int, warm_up: int) -> dict[str, Any]:
    """Compare and time a search."""
    ways = searches()
    names, left_out = installed(list(ways))
    queries, pool = unit_rows(case.queries, case.width), unit_rows(case.pool, case.width)
    expected, numbers = ways[OURS](queries, pool, case.k)
    agreement = {}
    for name in names:
        distances, found = ways[name](queries, pool, case.k)
        if (distances - expected).abs().max() > 1e-4:
            raise Mismatch(f"{name} finds other distances than ours in {case}.")
        agreement[name] = float((found == numbers).double().mean())
    others = OtherWork()
    seconds = measure(
        [Contender(name, lambda given, way=ways[name]: way(*given), lambda: (queries, pool, case.k)) for name in names],
        rounds,
        warm_up,
    )
    return case_result(case, seconds, others, left_out) | {"same_neighbours": agreement}


def data_of(case: Values) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return features and classes of the pool, and of the queries."""
    if case.data == "digits":
        x, y = (torch.from_numpy(part) for part in load_digits(return_X_y=True))
        x = x @ torch.rand(64).sqrt().double().diag()  # weighted pixels: whole numbers would make ties
    else:
        x, y = unit_rows(case.pool + case.queries, case.width), torch.randint(10, (case.pool + case.queries,))
    x, y = x[: case.pool + case.queries], y[: case.pool + case.queries]
    return x[: case.pool], y[: case.pool], x[case.pool :], y[case.pool :]


def pydvl(pool: Tensor, pool_y: Tensor, queries: Tensor, query_y: Tensor) -> Tensor:
    """Compute the values as pyDVL does."""
    from pydvl.valuation import Dataset
    from pydvl.valuation.methods.knn_shapley import KNNShapleyValuation

    model = KNeighborsClassifier(n_neighbors=NEIGHBOURS)
    valuation = KNNShapleyValuation(model, Dataset(queries.numpy(), query_y.numpy()), progress=False)
    return torch.from_numpy(valuation.fit(Dataset(pool.numpy(), pool_y.numpy())).result.values)


def run_values(case: Values, rounds: int, warm_up: int) -> dict[str, Any]:
    """Compare and time a valuation."""
    ways: dict[str, Callable[..., Tensor]] = {OURS: lambda *given: knn_shapley(*given, k=NEIGHBOURS), PYDVL: pydvl}
    names, left_out = installed(list(ways))
    given = data_of(case)
    values = ways[OURS](*given)
    distance = {name: float((ways[name](*given) - values).abs().max()) for name in names}
    if max(distance.values()) > 1e-9:
        raise Mismatch(f"pyDVL finds other values than ours in {case}: {distance}.")
    others = OtherWork()
    seconds = measure(
        [Contender(name, lambda given, way=ways[name]: way(*given), lambda: given) for name in names], rounds, warm_up
    )
    return case_result(case, seconds, others, left_out) | {"largest_difference": distance}


def case_result(
    case: Search | Values, seconds: dict[str, list[float]], others: OtherWork, left_out: Mapping[str, str]
) -> dict[str, Any]:
    """Return what the page needs of a case."""
    return {
        "kind": type(case).__name__,
        **vars(case),
        "ratios": ratios(seconds, OURS),
        "seconds": seconds,
        "cores_busy_with_others": others.cores(),
        "left_out": dict(left_out),
    }


def table(cases: Sequence[dict[str, Any]], keys: Sequence[str], names: Sequence[str], last: str) -> str:
    """Return the Markdown table of some cases: their sizes, times over ours, and one more column."""
    rows = []
    for case in cases:
        measured = case["ratios"]
        row = [", ".join(f"{case[key]}" for key in keys), f"{measured[OURS]['milliseconds']:.4g}"]
        rows.append([*row, *(cell(measured.get(name)) for name in names), least_or_most(case[last])])
    return markdown([", ".join(keys), "ours ms", *names, last.replace("_", " ")], rows)


def least_or_most(found: Mapping[str, float]) -> str:
    """Return the share of equal neighbours, or the largest difference of values."""
    others = [value for name, value in found.items() if name != OURS]
    if not others:
        return "–"
    return f"{min(others):.2%}" if min(others) > 0.5 else f"{max(others):.1e}"


def page(result: dict[str, Any]) -> str:
    """Return the page of results."""
    found = [[case for case in result["cases"] if case["kind"] == kind] for kind in ("Search", "Values")]
    notes = {f"{name} is left out: {why}.\n" for case in result["cases"] for name, why in case["left_out"].items()}
    return f"""# Search and values

Written by `make bench-valuation`. Ratios are a peer's time over ours, round by round: the median ± half the
interquartile range; above 1 ours is faster.

## Nearest neighbours

{table(found[0], ("queries", "pool", "width", "k"), (OURS_FAISS, FAISS, SKLEARN), "same_neighbours")}

Random features of unit length. All find the same distances to 1e-4, which is checked before the timing; the last column
is the least share of equal neighbours at equal ranks. faiss builds its flat index each time, as a selection does. Ours
measures what it found again without the products' rounding, and breaks ties by number.

## KNN-Shapley

{table(found[1], ("data", "queries", "pool", "width"), (PYDVL,), "largest_difference")}

The classifier asks {NEIGHBOURS} neighbours. The last column is the largest difference of a sample's value; more than
1e-9 ends the benchmark. Pixels of the digits are weighted, since whole numbers make ties that each breaks in its way.

{"".join(sorted(notes))}
{conditions(result)}
"""


def main() -> None:
    """Compare and time everything, and write the numbers and the page."""
    options = arguments(__doc__)
    torch.manual_seed(0)
    result = new_result("features", options, ("torch", "faiss-cpu", "pyDVL", "scikit-learn", "numpy"))
    searched = (Search(5, 300, 16, 4),) if options.quick else SEARCHES
    valued = (Values("digits", 10, 200, 64),) if options.quick else VALUES
    for case in (*searched, *valued):
        progress(f"{case}")
        run = run_search if isinstance(case, Search) else run_values
        result["cases"].append(run(case, result["rounds"], result["warm_up"]))  # type: ignore[operator]
    finish(result, options.output)
    text = page(result)
    if options.output:
        atomic_write(Path(options.output).with_suffix(".md"), text)
    print(text)


if __name__ == "__main__":
    main()
