"""How much replay saves from forgetting: the quickstart's runs over several seeds, with an interval.

Weights, data order and sampling get the seed; the prepared data are the same. Finished runs are kept, so it resumes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from commands import run as run_command
from figures import RUNS, read_metrics
from quickstart import CONFIGS, NEW, OLD

import lit_core
from lit_core.study import t_interval

BRANCHES = {"replay_30": "30 % replay", "replay_0": "no replay"}


Results = list[dict[str, dict[str, float]]]
"""What was measured of each branch, by seed."""


def main() -> None:
    """Run what is missing and write the table."""
    write_page(__doc__, "docs/results/forgetting.md", [*BRANCHES], run, report)


def write_page(
    description: str | None,
    page: str,
    branches: list[str],
    run: Callable[[int, str], dict[str, float]],
    report: Callable[[Results], str],
) -> None:
    """Read the command line, run each branch with each seed, and write the page.

    Args:
        description: What the script does.
        page: The page by default.
        branches: Names of the branches.
        run: Returns what is measured of a seed and a branch.
        report: Returns the page.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seeds", type=int, default=3, help="Number of seeds, 2 or more.")
    parser.add_argument("--output", type=Path, default=Path(page), help="Markdown file.")
    options = parser.parse_args()
    run_command("lit-moe prepare --config configs/moe/prepare/quickstart.yaml")
    results = [{branch: run(seed, branch) for branch in branches} for seed in range(options.seeds)]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(report(results))
    print(f"\nWrote {options.output}")


def run(seed: int, branch: str) -> dict[str, float]:
    """Return a branch's test results, and those before it, of one seed."""
    seeds = f"--seed_everything {seed}"
    before, after = f"forgetting-{seed}-pretrain", f"forgetting-{seed}-{branch}"
    fit_and_test(before, f"--config {CONFIGS}/pretrain.yaml {seeds}")
    origin = f"--branch_from {RUNS / before}/checkpoints/last.ckpt"
    fit_and_test(after, f"--config {CONFIGS}/continue.yaml --config {CONFIGS}/{branch}.yaml {seeds} {origin}")
    results = {}
    for moment, name in (("before", before), ("after", after)):
        metrics = read_metrics(name)
        for source in (OLD, NEW):
            results[f"{source} {moment}"] = metrics[f"test/{source}/bits_per_byte"][-1][1]
    return results


def fit_and_test(name: str, arguments: str) -> None:
    """Train a run and test it, or what is missing of it."""
    last = RUNS / name / "checkpoints" / "last.ckpt"
    if not last.exists():
        run_command(f"lit-moe fit {arguments} --run {name} --trainer.enable_progress_bar false")
    if f"test/{OLD}/bits_per_byte" not in read_metrics(name):
        run_command(f"lit-moe test --ckpt_path {last} --trainer.enable_progress_bar false")


def report(results: Results) -> str:
    """Put the results into Markdown."""
    lines = [
        "# Forgetting with and without replay",
        "",
        "Bits per byte on the whole test sets, of the quickstart's small granular mixture (penalty-balanced),",
        "pre-trained on English prose, then trained on Python code at equal compute.",
        "",
        f"| seed | branch | {OLD} before | {OLD} after | forgetting | {NEW} before | {NEW} after |",
        "|---|---|---|---|---|---|---|",
    ]
    for seed, branches in enumerate(results):
        for branch, values in branches.items():
            old, new = ([values[f"{source} {moment}"] for moment in ("before", "after")] for source in (OLD, NEW))
            cells = [*old, old[1] - old[0], *new]
            lines.append(f"| {seed} | {BRANCHES[branch]} | " + " | ".join(f"{cell:.3f}" for cell in cells) + " |")
    for source, what in ((OLD, "forgotten more without replay"), (NEW, "learnt worse with replay")):
        sign = 1 if source == OLD else -1
        pairs = [sign * (b["replay_0"][f"{source} after"] - b["replay_30"][f"{source} after"]) for b in results]
        found = t_interval(pairs)
        lines += [
            "",
            f"**{source}, {what}:** {found.mean:.3f} bits per byte, 95 % interval {found.low:.3f} to {found.high:.3f}",
        ]
        lines[-1] += f" (paired over {len(pairs)} seeds, Student's t)."
    versions = f"LitShift {lit_core.__version__}, torch {torch.__version__}"
    return "\n".join([*lines, "", f"`python examples/forgetting.py --seeds {len(results)}`; {versions}.", ""])


if __name__ == "__main__":
    main()
