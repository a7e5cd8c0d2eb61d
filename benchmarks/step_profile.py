"""Where the time of a training step goes: its operations by kind, and its speed beside that of one large product.

    python benchmarks/step_profile.py --output step_profile.json

The shapes are the quickstart's and the smallest of train_step.py. Steps are timed without the profiler, in one process
with the products of 2048 × 2048 matrices; shares are of torch's profiler, whose cost falls on small operations most.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import partial
from typing import Any

import torch
from side_by_side import Contender, OtherWork, arguments, finish, markdown, measure, new_result, progress, ratios
from torch.profiler import ProfilerActivity, profile
from train_step import MODELS, Case, Training, draw

PRODUCT, SIZE = "one large product", 2048
#: Kinds of operations by a pattern of their names, the first that fits.
KINDS = {
    "products": r"aten::(mm|addmm|bmm|baddbmm)$",
    "attention": r"aten::_scaled_dot_product|aten::_flash",
    "loss": r"aten::(_?log_softmax|nll_loss|cross_entropy)",
    "optimizer": r"aten::_(fused|foreach)_|Optimizer|aten::linalg_vector_norm",
    "routing, gathering": r"aten::(index|gather|scatter|(arg)?sort|topk|embedding|_?softmax|logsumexp)|Spread|Collect",
    "elementwise": r"aten::",
    "Python, autograd": r"",
}
PROFILED = 4  # steps


def cases(quick: bool) -> list[tuple[Case, str]]:
    """Return the shapes with the names of their models."""
    sizes = [(1, 64, 128, 256, 2, 32)] if quick else [(3, 128, 384, 2048, 32, 128), (4, 256, 704, 4096, 8, 512)]
    return [(Case(*size, "fp32"), name) for size in sizes for name in ("dense", "granular, penalty")]


def kind_of(operation: str) -> str:
    """Return the kind of an operation of the profiler."""
    return next(kind for kind, pattern in KINDS.items() if re.match(pattern, operation))


def shares(training: Training, case: Case) -> dict[str, float]:
    """Return the share of each kind in the time of some steps, by torch's profiler."""
    batches = [draw(case) for _ in range(PROFILED)]
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for batch in batches:
            training.step(batch)
    spent: Counter[str] = Counter()
    for event in profiled.key_averages():
        spent[kind_of(event.key)] += event.self_cpu_time_total
    return {kind: spent[kind] / spent.total() for kind in KINDS}


def run(case: Case, name: str, rounds: int, warm_up: int) -> dict[str, Any]:
    """Time and profile one model."""
    training, others = Training(case, *MODELS[name]), OtherWork()
    left, right = torch.randn(2, SIZE, SIZE)
    contenders = [
        Contender("step", training.step, partial(draw, case)),
        Contender(PRODUCT, lambda _: torch.mm(left, right), lambda: None),
    ]
    seconds = measure(contenders, rounds, warm_up)
    tokens = case.sequences * case.length
    operations = {
        "step": 3 * tokens * training.model.decoder.flops_per_token(case.length),
        PRODUCT: 2 * SIZE**3,
    }
    middle = {key: found["milliseconds"] for key, found in ratios(seconds, PRODUCT).items()}
    return {
        **vars(case),
        "model": name,
        "milliseconds": middle["step"],
        "gflops": {key: operations[key] / middle[key] / 1e6 for key in operations},
        "shares": shares(training, case),
        "seconds": seconds,
        "cores_busy_with_others": others.cores(),
    }


def table(result: dict[str, Any]) -> str:
    """Return the Markdown table of a result."""
    rows = []
    for case in result["cases"]:
        size = f"{case['model']}, {case['n_layers']}, {case['d_model']}, {case['d_ff']}, {case['vocab_size']}"
        speeds = [f"{case['gflops'][key]:.0f}" for key in ("step", PRODUCT)]
        parts = [f"{share:.0%}" for share in case["shares"].values()]
        rows.append([size, f"{case['sequences']} × {case['length']}", f"{case['milliseconds']:.4g}", *speeds, *parts])
    header = ["model, layers, d_model, d_ff, vocabulary", "tokens", "ms", "GFLOP/s", PRODUCT, *KINDS]
    return markdown(header, rows)


def main() -> None:
    """Time and profile all cases, print the table and write the numbers."""
    options = arguments(__doc__)
    torch.manual_seed(0)
    result, todo = new_result("step_profile", options, ("torch",)), cases(options.quick)
    for index, (case, name) in enumerate(todo, start=1):
        progress(f"[{index}/{len(todo)}] {name}, d_model {case.d_model}, {case.sequences} × {case.length} tokens")
        result["cases"].append(run(case, name, result["rounds"], result["warm_up"]))
    finish(result, options.output)
    print(table(result))


if __name__ == "__main__":
    main()
