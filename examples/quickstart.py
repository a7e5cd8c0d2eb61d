"""Pre-train a small mixture of experts on English, continue on Python code with and without replay, show what was lost.

Every step is an ordinary command, printed before it runs; this script only puts them in a row and draws the results.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import time

from figures import RUNS, draw_mri, read_metrics

CONFIGS = "configs/moe/quickstart"
OLD, NEW = "austen", "stdlib"
STAGES = {
    "quickstart-pretrain": "pre-trained on English",
    "quickstart-replay-30": "then code, 30 % replay",
    "quickstart-replay-0": "then code, no replay",
}


def main() -> None:
    """Run the commands, then print the table and draw the picture."""
    start = time.perf_counter()
    for name in STAGES:
        shutil.rmtree(RUNS / name, ignore_errors=True)
    before, *branches = STAGES
    lit_moe("prepare --config configs/moe/prepare/quickstart.yaml")
    lit_moe(f"fit --config {CONFIGS}/pretrain.yaml --run {before}")
    for name in branches:
        replay = name.removeprefix("quickstart-").replace("-", "_")
        lit_moe(
            f"fit --config {CONFIGS}/continue.yaml --config {CONFIGS}/{replay}.yaml "
            f"--branch_from {RUNS / before}/checkpoints/last.ckpt --run {name}"
        )
    for name in STAGES:
        lit_moe(f"test --ckpt_path {RUNS / name}/checkpoints/last.ckpt")
    print_table({name: read_metrics(name) for name in STAGES})
    picture = RUNS / "quickstart-mri.png"
    draw_mri(picture)
    print(f"\nMRI around the shift   {picture}")
    print(f"All runs               tensorboard --logdir {RUNS}")
    last = RUNS / branches[0] / "checkpoints" / "last.ckpt"
    print(f"Text from the model    lit-moe generate --ckpt_path {last} --prompt 'It was'")
    print(f"\nDone in {time.perf_counter() - start:.0f} s.")


def lit_moe(command: str) -> None:
    """Run one command as a user would type it."""
    run("lit-moe", command)


def run(program: str, command: str) -> None:
    """Print a command of one of the programs, and run it; end with its exit code if it fails."""
    print(f"\n$ {program} {command}", flush=True)
    code = subprocess.run([sys.executable, "-m", program.replace("-", "_"), *shlex.split(command)]).returncode
    if code:
        sys.exit(code)


def print_table(runs: dict[str, dict[str, list[tuple[int, float]]]]) -> None:
    """Print bits per byte on both domains, forgetting, MRI against its floor, tokens and FLOPs."""
    header = ["", f"{OLD} bits/byte", f"{NEW} bits/byte", "forgetting", f"MRI {OLD}", f"MRI {NEW}", "floor"]
    header += ["tokens", "FLOPs"]
    rows = [header]
    base = None
    for name, metrics in runs.items():
        last = {key: values[-1][1] for key, values in metrics.items()}
        old, new = (last[f"test/{source}/bits_per_byte"] for source in (OLD, NEW))
        base = old if base is None else base
        mri = [last[f"test/{source}/router/mri/mean"] for source in (OLD, NEW)]
        rows.append(
            [
                STAGES[name],
                f"{old:.3f}",
                f"{new:.3f}",
                f"{old - base:+.3f}",
                *(f"{value:.3f}" for value in mri),
                f"{last['test/router/mri_floor']:.3f}",
                f"{last['train/tokens'] / 1e6:.2f} M",
                f"{last['train/flops']:.2e}",
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    print("\nTest sets; MRI is the mean over the layers of the largest expert's share of tokens.\n")
    for name, *cells in rows:
        numbers = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        print("  ".join([name.ljust(widths[0]), *numbers]))


if __name__ == "__main__":
    main()
