"""Pre-train a small mixture of experts on English, continue on Python code with and without replay, show what was lost.

Every step is an ordinary command, printed before it runs; this script only puts them in a row and draws the results.
"""

from __future__ import annotations

import shutil

from commands import answer, elapsed, run
from figures import RUNS, draw_mri, read_metrics

from lit_core.files.tables import text_table

CONFIGS = "configs/moe/quickstart"
OLD, NEW = "austen", "stdlib"
STAGES = {
    "quickstart-pretrain": "pre-trained on English",
    "quickstart-replay-30": "then code, 30 % replay",
    "quickstart-replay-0": "then code, no replay",
}
BEFORE, *BRANCHES = STAGES
LAST = {name: RUNS / name / "checkpoints" / "last.ckpt" for name in STAGES}


def main() -> None:
    """Run the commands, then print the tables and draw the picture."""
    for name in BRANCHES:
        shutil.rmtree(RUNS / name, ignore_errors=True)
    pretrain()
    fits = [
        f"lit-moe fit --config {CONFIGS}/continue.yaml --config {CONFIGS}/{replay}.yaml "
        f"--branch_from {LAST[BEFORE]} --run {name}"
        for name, replay in zip(BRANCHES, ("replay_30", "replay_0"), strict=True)
    ]
    run(*fits, f"lit-moe test --ckpt_path {LAST[BEFORE]}")
    run(*(f"lit-moe test --ckpt_path {LAST[name]}" for name in BRANCHES))
    print_tables({name: read_metrics(name) for name in STAGES})
    picture = RUNS / "quickstart-mri.png"
    draw_mri(picture)
    print(f"\nMRI around the shift   {picture}")
    print(f"All runs               tensorboard --logdir {RUNS}")
    print(f"One page to be sent    lit-moe board {RUNS} --output page.html")
    print(f"Text from the model    lit-moe generate --ckpt_path {LAST[BRANCHES[0]]} --prompt 'It was'")
    print(f"\nDone in {elapsed():.0f} s.")


def pretrain() -> None:
    """Prepare the data and train the language model; answer at its first validation."""
    shutil.rmtree(RUNS / BEFORE, ignore_errors=True)
    run("lit-moe prepare --config configs/moe/prepare/quickstart.yaml")
    answered = False

    def look() -> None:
        nonlocal answered
        metrics = read_metrics(BEFORE)
        if answered or f"val/{NEW}/router/mri/mean" not in metrics:
            return
        answered = True
        step = metrics[f"val/{OLD}/bits_per_byte"][0][0]
        first = {key: values[0][1] for key, values in metrics.items()}
        old, new = (first[f"val/{name}/bits_per_byte"] for name in (OLD, NEW))
        share, floor = first[f"val/{OLD}/router/mri/mean"], first["val/router/mri_floor"]
        answer(
            f"{step + 1} steps on English, and the model needs {old:.2f} bits for a byte of English that it never saw, "
            f"{new:.2f} for one of Python code, to which it will shift. Its fullest expert gets {share:.1%} of the "
            f"English tokens, where {floor:.1%} would be perfect balance."
        )

    run(f"lit-moe fit --config {CONFIGS}/pretrain.yaml --run {BEFORE}", meanwhile=look)


def print_tables(runs: dict[str, dict[str, list[tuple[int, float]]]]) -> None:
    """Print bits per byte on both domains, forgetting, tokens and FLOPs, MRI against its floor, and what that says."""
    last = {name: {key: values[-1][1] for key, values in metrics.items()} for name, metrics in runs.items()}
    bits = {name: [values[f"test/{source}/bits_per_byte"] for source in (OLD, NEW)] for name, values in last.items()}
    base = bits[BEFORE][0]
    losses = [["bits per byte of the test texts", OLD, NEW, "forgetting", "tokens", "FLOPs"]]
    balance = [["MRI on the test texts", OLD, NEW, "floor"]]
    for name, values in last.items():
        old, new = bits[name]
        cost = [f"{values['train/tokens'] / 1e6:.2f} M", f"{values['train/flops']:.2e}"]
        losses.append([STAGES[name], f"{old:.3f}", f"{new:.3f}", f"{old - base:+.3f}", *cost])
        mri = [values[f"test/{source}/router/mri/mean"] for source in (OLD, NEW)]
        balance.append([STAGES[name], *(f"{value:.3f}" for value in (*mri, values["test/router/mri_floor"]))])
    print("", *text_table(losses), "", *text_table(balance), sep="\n")
    print("MRI is the mean over the layers of the fullest expert's share of tokens; the floor is perfect balance.")
    (with_old, with_new), (without_old, without_new) = (bits[name] for name in BRANCHES)
    answer(
        f"English took {base:.2f} bits per byte before the shift to code. After it, it takes {without_old:.2f} without "
        f"replay and {with_old:.2f} with 30 % replay; Python code takes {without_new:.2f} and {with_new:.2f}, after "
        f"{bits[BEFORE][1]:.2f} before."
    )


if __name__ == "__main__":
    main()
