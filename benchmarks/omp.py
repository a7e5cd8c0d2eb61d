"""Matching pursuit on factored gradients beside the same on materialised ones and scikit-learn's: time and memory.

    python benchmarks/omp.py --rounds 3 --output docs/results/omp.json

writes the page omp.md beside the numbers. Each run is a process of its own, so that its peak memory is its own; what it
is timed for begins with the factors (deltas and last hidden layer) and, but for ours, builds the gradients from them.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report import conditions
from side_by_side import OtherWork, arguments, finish, markdown, new_result, progress
from torch import Tensor

from lit_core.files.paths import atomic_write
from lit_valuation.functional.gradients import LastLayerGradients, last_layer_gradients
from lit_valuation.functional.pursuit import PursuitOptions, matching_pursuit

OURS, MATERIALISED, SKLEARN = "ours", "materialised", "scikit-learn"
AIM = 50
SIZE = {"n": 5_000, "classes": 101, "width": 2_048, "k": 64}
SAME = {"n": 1_000, "classes": 101, "width": 256, "k": 32}
QUICK = {"n": 300, "classes": 10, "width": 32, "k": 8}
CURVES = [{"n": n, "classes": 101, "width": 512, "k": 64} for n in (1_000, 10_000, 100_000)]
CURVES += [{"n": 10_000, "classes": 101, "width": 512, "k": k} for k in (16, 250, 1_000)]
RIDGE = 0.01


def draw(size: dict[str, int], dtype: torch.dtype) -> tuple[LastLayerGradients, Tensor]:
    """Return the factors of a pool's gradients and the summed gradient of 40 queries."""
    torch.manual_seed(0)
    hidden = torch.randn(size["n"] + 40, size["width"]).relu()
    labels = torch.randint(size["classes"], (size["n"] + 40,))
    logits = hidden @ torch.randn(size["width"], size["classes"]) / size["width"] ** 0.5
    gradients = last_layer_gradients(logits.to(dtype), hidden.to(dtype), labels)
    return gradients.take(range(size["n"])), gradients.take(range(size["n"], size["n"] + 40)).sum()


def ours(gradients: LastLayerGradients, target: Tensor, k: int) -> tuple[list[int], float]:
    """Return support and relative residual as this project finds them."""
    found = matching_pursuit(gradients, target, k, PursuitOptions(ridge=RIDGE))
    return found.support.tolist(), found.residual


def materialised(gradients: LastLayerGradients, target: Tensor, k: int) -> tuple[list[int], float]:
    """Return support and relative residual by the same steps on a row of C (d + 1) numbers for each sample."""
    rows, goal = materialise(gradients), target.flatten().numpy()
    ridge = RIDGE * float(np.mean([row @ row for row in rows]))
    support, weights = list[int](), np.zeros(0)
    residual = goal
    while len(support) < k:
        scores = rows @ residual
        scores[support] = -np.inf
        best = int(scores.argmax())
        if scores[best] <= 0:
            break
        support, weights = [*support, best], np.append(weights, 0.0)
        while True:
            chosen = rows[support]
            gram = (chosen @ chosen.T).astype(np.float64) + ridge * np.eye(len(support))
            solution = np.linalg.solve(gram, (chosen @ goal).astype(np.float64))
            if (solution > 0).all():
                weights = solution
                break
            way = np.where(solution <= 0, weights / np.maximum(weights - solution, 1e-300), np.inf)
            weights = weights + way.min() * (solution - weights)
            kept = np.flatnonzero(way > way.min())
            support, weights = [support[i] for i in kept], weights[kept]
        residual = goal - (weights.astype(rows.dtype) @ chosen)
    return support, float(np.linalg.norm(residual) / np.linalg.norm(goal))


def scikit_learn(gradients: LastLayerGradients, target: Tensor, k: int) -> tuple[list[int], float]:
    """Return support and relative residual of plain matching pursuit, without ridge and with weights of both signs."""
    from sklearn.linear_model import orthogonal_mp

    rows, goal = materialise(gradients), target.flatten().numpy()
    weights = orthogonal_mp(rows.T, goal, n_nonzero_coefs=k, copy_X=True)
    support = np.flatnonzero(weights)
    residual = goal - weights[support] @ rows[support]
    return support.tolist(), float(np.linalg.norm(residual) / np.linalg.norm(goal))


def materialise(gradients: LastLayerGradients) -> np.ndarray:
    """Build each sample's gradient, ``(n, C (d + 1))``."""
    hidden = np.concatenate([gradients.hidden.numpy(), np.ones((len(gradients), 1), gradients.hidden.numpy().dtype)], 1)
    return (gradients.delta.numpy()[:, :, None] * hidden[:, None, :]).reshape(len(gradients), -1)


WAYS: dict[str, Callable[..., tuple[list[int], float]]] = {
    OURS: ours,
    MATERIALISED: materialised,
    SKLEARN: scikit_learn,
}


def child(name: str, size: dict[str, int], dtype: str, threads: int) -> None:
    """Run one contender once and print what it took, as JSON."""
    torch.set_num_threads(threads)
    gradients, target = draw(size, getattr(torch, dtype))
    ours(gradients.take(range(50)), target, 2)  # whatever is set up once
    before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    start = time.perf_counter()
    support, residual = WAYS[name](gradients, target, size["k"])
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    memory = max(0, peak - before) / 2**20
    print(json.dumps({"seconds": seconds, "mebibytes": memory, "support": support, "residual": residual}))


def run(name: str, size: dict[str, int], dtype: str = "float32") -> dict[str, Any]:
    """Run one contender in a process of its own."""
    given = json.dumps([name, size, dtype, torch.get_num_threads()])
    done = subprocess.run([sys.executable, __file__, "--child", given], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def compare(size: dict[str, int], rounds: int) -> dict[str, Any]:
    """Time all contenders, one after the other in each round."""
    others, found = OtherWork(), {name: list[dict[str, Any]]() for name in WAYS}
    for number in range(rounds):
        for name, runs in found.items():
            progress(f"round {number + 1} of {rounds}: {name}")
            runs.append(run(name, size))
    best = [one["seconds"] for one in found[OURS]]
    return {
        **size,
        "contenders": {
            name: {
                "seconds": [one["seconds"] for one in runs],
                "ratio": statistics.median(one["seconds"] / mine for one, mine in zip(runs, best, strict=True)),
                "mebibytes": statistics.median(one["mebibytes"] for one in runs),
                "residual": runs[0]["residual"],
            }
            for name, runs in found.items()
        },
        "cores_busy_with_others": others.cores(),
    }


def page(result: dict[str, Any]) -> str:
    """Return the page omp.md."""
    main, same, curves = result["cases"][0], result["same"], result["curves"]
    mine = main["contenders"][OURS]
    rows = [
        [
            name,
            f"{statistics.median(one['seconds']):.2f}",
            f"{one['ratio']:.1f}",
            f"{one['mebibytes']:,.0f}",
            f"{one['mebibytes'] / max(mine['mebibytes'], 1):.0f}",
            f"{one['residual']:.4f}",
        ]
        for name, one in main["contenders"].items()
    ]
    baseline = main["contenders"][MATERIALISED]
    memory = baseline["mebibytes"] / max(mine["mebibytes"], 1)
    curve = [
        [f"{c['n']:,}", str(c["k"]), f"{c['seconds']:.2f}", f"{c['mebibytes']:,.0f}", f"{c['factors']:,.0f}"]
        for c in curves
    ]
    return f"""# Matching pursuit

Written by `make bench-valuation`. n = {main["n"]:,} samples, C = {main["classes"]} classes, d = {main["width"]:,}
features, k = {main["k"]} chosen; random features and labels, float32.

{markdown(["", "seconds", "× ours", "MiB above the start", "× ours", "relative residual"], rows)}

Medians over {result["rounds"]} rounds, each contender in a process of its own. The time of *materialised*, the same
steps on gradients of C (d + 1) numbers, and of scikit-learn's plain pursuit (no ridge, weights of both signs) includes
building the gradients. The aim of {AIM} times faster than materialised is {_verdict(baseline["ratio"])}, that of {AIM}
times less memory {_verdict(memory)}.

In float64 (n = {same["n"]:,}, C = {same["classes"]}, d = {same["width"]}, k = {same["k"]}) ours and materialised choose
{"the same samples in the same order" if same["equal"] else "other samples"}; their residuals differ by
{same["residual_difference"]:.0e}. In float32 at the size above, they differ by
{abs(mine["residual"] - baseline["residual"]):.0e}.

## What it costs

{markdown(["n", "k", "seconds", "MiB above the start", "MiB of factors"], curve)}

C = 101, d = 512. A step is a Gram column, n (C + d) multiplications, and a product with the columns so far, n t; the
columns, n k numbers, are the memory.

{conditions(result)}
"""


def _verdict(ratio: float) -> str:
    return f"{'met' if ratio >= AIM else 'not met'} ({ratio:.0f})"


def main() -> None:
    """Compare, write the numbers and the page."""
    if sys.argv[1:2] == ["--child"]:
        child(*json.loads(sys.argv[2]))
        return
    options = arguments(__doc__)
    result = new_result("omp", options, ("torch", "numpy", "scikit-learn"))
    size, same, curves = (QUICK, QUICK, [QUICK]) if options.quick else (SIZE, SAME, CURVES)
    result["warm_up"] = 0
    result["cases"].append(compare(size, result["rounds"]))
    one, other = (run(name, same, "float64") for name in (OURS, MATERIALISED))
    difference = abs(one["residual"] - other["residual"])
    result["same"] = {**same, "equal": one["support"] == other["support"], "residual_difference": difference}
    result["curves"] = []
    for case in curves:
        progress(f"ours: n {case['n']}, k {case['k']}")
        found = run(OURS, case)
        factors = 4 * case["n"] * (case["classes"] + case["width"]) / 2**20
        result["curves"].append({**case, "factors": factors} | {key: found[key] for key in ("seconds", "mebibytes")})
    finish(result, options.output)
    text = page(result)
    print(text)
    if options.output:
        atomic_write(Path(options.output).with_name("omp.md"), text)


if __name__ == "__main__":
    main()
