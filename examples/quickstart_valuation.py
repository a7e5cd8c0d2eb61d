"""Six owners of digits: whose data helps a model that was misled by backgrounds, and how few samples show it.

Every step is an ordinary command, printed before it runs; this script only puts them in a row and prints the tables.
"""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

from commands import answer, elapsed, run

from lit_core.files.tables import text_table
from lit_core.study import t_interval

RUNS = Path("runs/valuation")
STUDY, OWN, FIT = (RUNS / f"quickstart-{name}" for name in ("smoke", "own", "chosen"))
#: Tables that the study does not show on the screen, and the column by which their rows are grouped.
GROUPED = {"Owners with a budget of 8": "owner", "Selectors": "budget"}


def main() -> None:
    """Run the commands, then print the tables."""
    for folder in (STUDY, OWN, FIT):
        shutil.rmtree(folder, ignore_errors=True)
    configs, last = "configs/valuation", f"{OWN}/checkpoints/last.ckpt"
    # The networks are so small that a second thread would only be waited for.
    run(f"lit-valuation study --config {configs}/studies/quickstart.yaml", threads=1)
    say_who_helps()
    run(f"lit-valuation divide --config {configs}/divide/digits.yaml", threads=1)
    run(f"lit-valuation fit --config {configs}/quickstart/own.yaml --run {OWN.name}", threads=1)
    run(f"lit-valuation test --ckpt_path {last}", threads=1)
    run(f"lit-valuation fit --config {configs}/quickstart/chosen.yaml --branch_from {last} --run {FIT.name}", threads=1)
    run(f"lit-valuation test --ckpt_path {FIT}/checkpoints/last.ckpt", threads=1)
    say_what_was_gained()
    print(*tables((STUDY / "report.md").read_text()), sep="\n")
    print(f"Budget curves          {STUDY / 'report' / 'budget-curves.png'}")
    print(f"Chosen images          tensorboard --logdir {FIT}")
    print(f"One page to be sent    lit-valuation board {STUDY} {OWN} {FIT} --output page.html")
    print("Between organisations  docs/exchange.md")
    print(f"\nDone in {elapsed():.0f} s.")


def say_who_helps() -> None:
    """Say what the study found."""
    with (STUDY / "results.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["budget"] == "8" and row["held_out"]]

    def accuracies(selector: str, owner: str) -> list[float]:
        return [float(row["held_out"]) for row in rows if (row["selector"], row["owner"]) == (selector, owner)]

    owners = sorted({row["owner"] for row in rows})
    found = {owner: t_interval(accuracies("GradientMatching", owner)) for owner in owners}
    best, worst = (pick(found, key=lambda owner: found[owner].mean) for pick in (max, min))
    base = t_interval(accuracies("nothing", best))
    answer(
        f"8 samples of {best} help most. With them, accuracy on hard cases that no owner saw goes from {base.mean:.2f} "
        f"to {found[best].mean:.2f} (95 % interval {found[best].low:.2f} to {found[best].high:.2f}, {base.n} seeds); "
        f"with 8 of {worst} it goes to {found[worst].mean:.2f}."
    )


def say_what_was_gained() -> None:
    """Say what the two tests measured."""
    (all_before, hard_before), (all_after, hard_after) = map(tested, (OWN, FIT))
    answer(
        "training on the quarter of the trainer's and all owners' samples that gradient matching chose takes "
        f"accuracy on hard cases from {hard_before:.2f} to {hard_after:.2f}, and on all from {all_before:.2f} to "
        f"{all_after:.2f}."
    )


def tested(folder: Path) -> list[float]:
    """Return the accuracy on all and on hard cases in the test of a run."""
    with (folder / "metrics.csv").open(newline="") as file:
        values = {key: float(value) for row in csv.DictReader(file) for key, value in row.items() if value}
    return [values[f"test/{group}/accuracy"] for group in ("all", "hard")]


def tables(report: str) -> list[str]:
    """Return the tables of a study's page that it has not shown, with their rows in groups, in 80 columns."""
    lines = []
    for part in report.split("\n## ")[1:]:
        heading, *rest = part.splitlines()
        if heading not in GROUPED:
            continue
        header, *rows = ([cell.strip() for cell in row.strip("|").split("|")] for row in rest if row.startswith("| "))
        column = header.index(GROUPED[heading])
        shown = [index for index, name in enumerate(header) if name not in (GROUPED[heading], "seeds")]
        table = [[header[index] for index in shown]]
        for group in dict.fromkeys(row[column] for row in rows):
            title = group if group.startswith(GROUPED[heading]) else f"{GROUPED[heading]} {group}"
            table += [[title], *([row[index] for index in shown] for row in rows if row[column] == group)]
        lines += [f"{heading}, means over {rows[0][-1]} seeds", *text_table(table), ""]
    return lines


if __name__ == "__main__":
    main()
