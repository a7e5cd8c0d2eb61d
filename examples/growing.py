"""What more experts save from forgetting, beside replay and beside nothing, at equal compute: the quickstart's shift.

Weights, data order and sampling get the seed; the prepared data are the same. Finished runs are kept, so it resumes.
"""

from __future__ import annotations

from pathlib import Path

import torch
from commands import run as run_command
from figures import RUNS, read_metrics
from forgetting import Results, fit_and_test, write_page
from quickstart import CONFIGS, NEW, OLD

import lit_core
from lit_core.data.tokens import TokenWindows
from lit_core.files.paths import resolve_data_path
from lit_core.study import t_interval
from lit_moe.lm import load_module
from lit_moe.nn import MoEFeedForward

ADDED = 8
CHILLED = "--model.init_args.lr_factors '{decoder: 0.1}'"
GROWN = "--model.init_args.lr_factors '{decoder: 0.1, added: 1.0}'"
#: By name: the config of the replay, further arguments, and how the mixture grows, where it does.
BRANCHES = {
    "nothing": ("replay_0", "", None),
    "30 % replay": ("replay_30", "", None),
    "old weights at a tenth of the rate": ("replay_0", CHILLED, None),
    "copies added, old weights at a tenth": ("replay_0", GROWN, "copies"),
    "fresh experts added, old weights at a tenth": ("replay_0", GROWN, "fresh"),
    "copies added": ("replay_0", "", "copies"),
}
#: Windows of each text on which the share of the added experts is counted.
WINDOWS = 64


def main() -> None:
    """Run what is missing and write the tables."""
    write_page(__doc__, "docs/results/growing.md", [*BRANCHES], run, report)


def run(seed: int, branch: str) -> dict[str, float]:
    """Return a branch's test results, and those before it, of one seed."""
    replay, arguments, start = BRANCHES[branch]
    before, after = f"growing-{seed}-pretrain", f"growing-{seed}-branch-{[*BRANCHES].index(branch)}"
    fit_and_test(before, f"--config {CONFIGS}/pretrain.yaml --seed_everything {seed}")
    origin = RUNS / before / "checkpoints" / "last.ckpt"
    if start is not None:
        grown = RUNS / before / f"{start}.ckpt"
        if not grown.exists():
            how = f"--n_added {ADDED} --start {start} --warmup 20 --seed {seed}"
            run_command(f"lit-moe grow --ckpt_path {origin} --output {grown} {how}")
        origin = grown
    configs = f"--config {CONFIGS}/continue.yaml --config {CONFIGS}/{replay}.yaml"
    fit_and_test(after, f"{configs} --seed_everything {seed} --branch_from {origin} {arguments}")
    results = {}
    for moment, name in (("before", before), ("after", after)):
        metrics = read_metrics(name)
        for source in (OLD, NEW):
            results[f"{source} {moment}"] = metrics[f"test/{source}/bits_per_byte"][-1][1]
    if start is not None:
        results |= shares(RUNS / after / "checkpoints" / "last.ckpt")
    return results


@torch.no_grad()
def shares(ckpt_path: Path) -> dict[str, float]:
    """Return the share of the added experts in all assignments, and the largest load of an expert, by text."""
    module, _ = load_module(ckpt_path)
    layers = [layer for layer in module.eval().modules() if isinstance(layer, MoEFeedForward)]
    found = {}
    for source in (OLD, NEW):
        windows = TokenWindows(resolve_data_path("quickstart") / source / "test", 128)
        module(torch.stack([windows[index]["input_ids"] for index in range(WINDOWS)]))
        counts = torch.stack([layer.stats.counts for layer in layers if layer.stats is not None]).double()
        shares_LE = counts / counts.sum(1, keepdim=True)
        found[f"{source} added"] = float(shares_LE[:, -ADDED:].sum(1).mean())
        found[f"{source} largest"] = float(shares_LE.max(1).values.mean())
    return found


def report(results: Results) -> str:
    """Put the results into Markdown."""
    n_experts = 31
    lines = [
        "# Growing a mixture, beside replay and beside nothing",
        "",
        "Bits per byte on the whole test sets, of the quickstart's small granular mixture (penalty-balanced),",
        "pre-trained on English prose, then trained on Python code at equal compute: as many steps, tokens and",
        f"operations per token. {ADDED} experts are added to {n_experts} in each layer by `lit-moe grow`, with a",
        "warm-up of 20 of 120 steps.",
        "",
        f"| branch | seed | {OLD} before | {OLD} after | forgetting | {NEW} before | {NEW} after |",
        "|---|---|---|---|---|---|---|",
    ]
    for branch in BRANCHES:
        for seed, values in enumerate(one[branch] for one in results):
            old, new = ([values[f"{source} {moment}"] for moment in ("before", "after")] for source in (OLD, NEW))
            cells = [*old, old[1] - old[0], *new]
            lines.append(f"| {branch} | {seed} | " + " | ".join(f"{cell:.3f}" for cell in cells) + " |")
    lines += ["", "Against doing nothing, paired by seed, with 95 % intervals (Student's t); lower is better:", ""]
    lines += [f"| branch | forgetting ({OLD}) | {NEW} after |", "|---|---|---|"]
    for branch in [name for name in BRANCHES if name != "nothing"]:
        cells = []
        for source in (OLD, NEW):
            pairs = [one[branch][f"{source} after"] - one["nothing"][f"{source} after"] for one in results]
            found = t_interval(pairs)
            cells.append(f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]")
        lines.append(f"| {branch} | {' | '.join(cells)} |")
    even = ADDED / (n_experts + ADDED)
    lines += [
        "",
        f"Share of all assignments that the added experts get (an even load would be {even:.3f}), and the",
        f"largest load of an expert (even: {1 / (n_experts + ADDED):.3f}), mean over layers, {WINDOWS} windows of each",
        "test set:",
        "",
        f"| branch | seed | added, {OLD} | added, {NEW} | largest, {OLD} | largest, {NEW} |",
        "|---|---|---|---|---|---|",
    ]
    for branch, (_, _, start) in BRANCHES.items():
        for seed, values in enumerate(one[branch] for one in results if start is not None):
            keys = [f"{source} {what}" for what in ("added", "largest") for source in (OLD, NEW)]
            lines.append(f"| {branch} | {seed} | " + " | ".join(f"{values[key]:.3f}" for key in keys) + " |")
    versions = f"LitShift {lit_core.__version__}, torch {torch.__version__}"
    return "\n".join([*lines, "", f"`python examples/growing.py --seeds {len(results)}`; {versions}.", ""])


if __name__ == "__main__":
    main()
