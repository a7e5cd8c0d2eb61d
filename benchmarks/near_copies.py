"""Near copies by an index beside measuring every pair: equal results first, then times and memory.

    python benchmarks/near_copies.py --threads 1 --rounds 3 --warm-up 1 --output docs/results/near_copies.json

writes the page near_copies.md beside the numbers. It fetches Fashion-MNIST, a package of Debian. faiss is left out with
a note where it is not installed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from report import conditions
from side_by_side import Contender, OtherWork, arguments, cell, finish, markdown, measure, new_result, progress, ratios
from torch import Tensor

from lit_core.files.paths import atomic_write
from lit_valuation.data.copies import CopyFinder
from lit_valuation.functional.near_index import NearIndex
from lit_valuation.samples import Samples
from lit_valuation.sources import Digits, FashionMNIST, SklearnTable

OURS, BRUTE, FAISS = "ours", "every pair", "faiss"
NEAR, NOISE, CHANGED = 0.25, 0.02, 32


class Mismatch(Exception):
    """A contender does not find what measuring every pair finds."""


@dataclass(frozen=True)
class Case:
    """A comparison: data, samples of the trainer, samples of answers."""

    data: str
    own: int
    answers: int


CASES = (Case("digits", 1_000, 600), Case("tumours", 280, 180), Case("fashion", 60_000, 200))


def samples_of(data: str) -> Samples:
    """Return the samples of a source in a random order."""
    source = {"digits": Digits, "tumours": lambda: SklearnTable("breast_cancer"), "fashion": FashionMNIST}[data]()
    samples = source.samples()
    return samples.take(torch.randperm(len(samples)))


def divided(case: Case) -> tuple[Samples, Samples, Samples]:
    """Return the trainer's samples, hard cases, and an answer: honest samples, then changed ones of the trainer's."""
    samples = samples_of(case.data)
    own = samples.take(range(case.own))
    cases = samples.take(range(case.own, case.own + 100))
    honest = samples.take(range(case.own + 100, case.own + 100 + case.answers - CHANGED))
    deviation = own.inputs()[:1000].std(0)
    changed = own.inputs()[:CHANGED] + NOISE * deviation * torch.randn(own.x[:CHANGED].shape)
    x = torch.cat([honest.inputs(), changed])
    y = torch.cat([honest.y, own.y[:CHANGED]])
    return own, cases, Samples(x, y, samples.classes, tuple(map(str, range(len(x)))))


def by_index(rows: Callable[[Tensor], Tensor], n: int, queries: Tensor, distance: float) -> set[tuple[int, int]]:
    """Return the near pairs by our index, which is built each time."""
    return set(zip(*(part.tolist() for part in NearIndex(rows, n).within(queries, distance)), strict=True))


def by_every_pair(rows: Callable[[Tensor], Tensor], n: int, queries: Tensor, distance: float) -> set[tuple[int, int]]:
    """Return the near pairs by measuring all, with the whole set in float32, as we did before there was an index."""
    everything = rows(torch.arange(n)).float()
    exactly = "donot_use_mm_for_euclid_dist"
    found = [torch.cdist(block.float(), everything, compute_mode=exactly) < distance for block in queries.split(1024)]
    return {(query, row) for query, row in torch.cat(found).nonzero().tolist()}


def by_faiss(rows: Callable[[Tensor], Tensor], n: int, queries: Tensor, distance: float) -> set[tuple[int, int]]:
    """Return the near pairs by faiss's flat index, with the whole set in float32."""
    import faiss

    everything = rows(torch.arange(n)).float()
    index = faiss.IndexFlatL2(everything.shape[1])
    index.add(everything.numpy())
    limits, _, found = index.range_search(queries.float().numpy(), distance**2)
    queried = torch.arange(len(queries)).repeat_interleave(torch.from_numpy(limits.astype("int64")).diff())
    return set(zip(queried.tolist(), found.tolist(), strict=True))


def run(case: Case, rounds: int, warm_up: int) -> dict[str, Any]:
    """Compare and time one case."""
    own, cases, answers = divided(case)
    finder = CopyFinder(own, cases, NEAR)
    (rows,), (distance,) = finder.own.spaces, finder.distances
    queries = finder.prepare(answers).rows(0)
    ways = {OURS: by_index, BRUTE: by_every_pair}
    left_out = {}
    if importlib.util.find_spec("faiss"):
        ways[FAISS] = by_faiss
    else:
        left_out[FAISS] = "faiss is not installed"
    given = (rows, case.own, queries, distance)
    expected = by_every_pair(*given)
    for name, way in ways.items():
        if way(*given) != expected:
            raise Mismatch(f"{name} finds other pairs than measuring every pair in {case}.")
    copied = {query for query, _ in expected}
    others = OtherWork()
    contenders = [Contender(name, lambda given, way=way: way(*given), lambda: given) for name, way in ways.items()]
    seconds = measure(contenders, rounds, warm_up)
    index, width = NearIndex(rows, case.own), queries.shape[1]
    asked: list[int] = []

    def counted(indices: Tensor) -> Tensor:
        asked.append(len(indices))
        return rows(indices)

    index._rows = counted
    index.within(queries, distance)
    return {
        **vars(case),
        "ratios": ratios(seconds, OURS),
        "seconds": seconds,
        "cores_busy_with_others": others.cores(),
        "left_out": left_out,
        "width": width,
        "honest": case.answers - CHANGED,
        "honest_copies": sum(query < case.answers - CHANGED for query in copied),
        "changed_copies": sum(query >= case.answers - CHANGED for query in copied),
        "measured_share": sum(asked) / (case.own * case.answers),
        "memory_share": index.numbers / (case.own * width),
    }


def page(result: dict[str, Any]) -> str:
    """Return the page of results."""
    rows = []
    for case in result["cases"]:
        measured = case["ratios"]
        row = [f"{case['data']}, {case['own']}, {case['answers']}, {case['width']}"]
        row.append(f"{measured[OURS]['milliseconds']:.4g}")
        row += [cell(measured.get(name)) for name in (BRUTE, FAISS)]
        row += [f"{case['measured_share']:.3%}", f"{case['memory_share']:.1%}"]
        row += [f"{case['changed_copies']} of {CHANGED}", f"{case['honest_copies']} of {case['honest']}"]
        rows.append(row)
    notes = {f"{name} is left out: {why}.\n" for case in result["cases"] for name, why in case["left_out"].items()}
    head = ["data, trainer's, answers', width", "ours ms", "every pair", "faiss", "measured", "numbers kept"]
    return f"""# Near copies

How long does `rank` look for samples of answers that nearly equal one of the trainer's? Written by
`python benchmarks/near_copies.py --threads 1 --rounds 3 --warm-up 1 --output docs/results/near_copies.json`. Ratios are
a peer's time over ours, round by round: the median ± half the interquartile range; above 1 ours is faster.

{markdown([*head, "changed found", "honest taken for copies"], rows)}

All find the same pairs, which is checked before the timing. The index is built each time; `rank` builds one for all
answers. "every pair" and faiss hold the whole set in float32, as `rank` did before. "measured" is the share of pairs
that ours measures after its bounds, "numbers kept" the share of the set's numbers that it keeps in memory. Of each
answer {CHANGED} samples are the trainer's with noise of {NOISE} standard deviations, the others are different samples
of the same data.

{"".join(sorted(notes))}
{conditions(result)}
"""


def main() -> None:
    """Compare and time everything, and write the numbers and the page."""
    options = arguments(__doc__)
    torch.manual_seed(0)
    result = new_result("near_copies", options, ("torch", "faiss-cpu", "scikit-learn", "numpy"))
    for case in CASES[:2] if options.quick else CASES:
        progress(f"{case}")
        result["cases"].append(run(case, result["rounds"], result["warm_up"]))
    finish(result, options.output)
    text = page(result)
    if options.output:
        atomic_write(Path(options.output).with_suffix(".md"), text)
    print(text)


if __name__ == "__main__":
    main()
