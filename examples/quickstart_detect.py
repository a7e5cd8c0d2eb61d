"""Two detectors of machine text, in distribution, on generators they never saw, and under attack: one table.

Every step is an ordinary command, printed before it runs; this script only puts them in a row and prints the table. The
language model behind GLTR and DFTFooler is the one that quickstart.py trains; where there is none yet, it is trained.
"""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

from commands import answer, elapsed, run
from quickstart import BEFORE, LAST, pretrain

from lit_core.files.tables import text_table

RUNS = Path("runs/detect")
REPORT = RUNS / "quickstart-report"
DETECTORS = {"GLTR": "quickstart/gltr.yaml", "encoder": "detector/encoder_scratch.yaml"}
ATTACKS = {"DFTFooler": "quickstart/dftfooler.yaml", "Homoglyph": "attack/homoglyph.yaml"}
SOURCES = ("embedded", "wild_fewer_layers", "wild_continued", "wild_scratch", "wild_ngram")


def main() -> None:
    """Run the commands, then print the table."""
    for name in ("quickstart-GLTR", "quickstart-encoder", REPORT.name, "quickstart-attacked"):
        shutil.rmtree(RUNS / name, ignore_errors=True)
    last = {name: RUNS / f"quickstart-{name}" / "checkpoints" / "last.ckpt" for name in DETECTORS}
    fits = {
        name: f"lit-detect fit --config configs/detect/fit/texts.yaml --config configs/detect/{config} "
        f"--run quickstart-{name}"
        for name, config in DETECTORS.items()
    }
    # The encoder is so small that a second thread would mostly be waited for.
    run(fits["encoder"], threads=1)
    run(f"lit-detect test --ckpt_path {last['encoder']}")
    say_who_is_called(RUNS / "quickstart-encoder" / "metrics.csv")
    if not LAST[BEFORE].is_file():
        pretrain()
    attacked = {name: RUNS / "quickstart-attacked" / f"{name}.jsonl" for name in ATTACKS}
    attacks = (
        f"lit-detect attack --limit 50 --config configs/detect/{config} --input texts/embedded/test "
        f"--output {attacked[name]}"
        for name, config in ATTACKS.items()
    )
    run(fits["GLTR"], *attacks)
    checkpoints = " ".join(f"--detectors.{name} {last[name]}" for name in DETECTORS)
    texts = ", ".join([*(f'"texts/{source}/test"' for source in SOURCES), *(f'"{path}"' for path in attacked.values())])
    run(f"lit-detect report {checkpoints} --texts '[{texts}]' --output {REPORT}")
    print("", *table(REPORT / "report.csv"), "", sep="\n")
    print("SmolLM2-135M-Instruct is that trained on. One seed; brackets: 95 % intervals.")
    print(f"\nReport               {REPORT / 'report.md'}")
    print(f"Pictures             tensorboard --logdir {RUNS}")
    print(f"One page to be sent  lit-detect board {REPORT} --output page.html")
    print(f"Ask a detector       lit-detect predict --ckpt_path {last['GLTR']} --data.init_args.predict YOUR_TEXTS.csv")
    print(f"\nDone in {elapsed():.0f} s.")


def say_who_is_called(path: Path) -> None:
    """Say what the test of the encoder measured."""
    with path.open(newline="") as file:
        values = {key: float(value) for row in csv.DictReader(file) for key, value in row.items() if value}
    known, *unseen = (values[f"test/{source}/auroc"] for source in SOURCES)
    answer(
        "a small encoder tells human texts from those of the generator that it was trained on with an AUROC of "
        f"{known:.2f} (0.5 is chance, 1 perfect), and from those of four generators that it never saw with "
        f"{min(unseen):.2f} to {max(unseen):.2f}."
    )


def table(path: Path) -> list[str]:
    """Return a line per generator and attack, a column per detector, in 80 columns."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    lines = [["", *DETECTORS]]
    for kind, label, metric, title in (
        ("generator", "generator", "auroc", "AUROC of a generator's texts against human ones; 0.5 is chance"),
        ("evasion", "attack", "evasion", "evasion: share of the detected texts that are no longer detected"),
    ):
        found: dict[str, dict[str, str]] = {}
        for row in rows:
            if row["table"] == kind and row.get(metric):
                mean, low, high = (float(row[f"{metric}{end}"]) for end in ("", "_low", "_high"))
                found.setdefault(row[label], {})[row["detector"]] = f"{mean:.2f} [{low:.2f}, {high:.2f}]"
        names = {name: name if len(name) <= 40 else f"{name[:39]}…" for name in found}
        lines += [[title], *([names[name], *(cells.get(d, "-") for d in DETECTORS)] for name, cells in found.items())]
    return text_table(lines)


if __name__ == "__main__":
    main()
