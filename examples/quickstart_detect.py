"""Two detectors of machine text, in distribution, on generators they never saw, and under attack: one table.

Every step is an ordinary command, printed before it runs; this script only puts them in a row and prints the table. The
language model behind GLTR and DFTFooler is the one that quickstart.py trains.
"""

from __future__ import annotations

import csv
import shutil
import sys
import time
from pathlib import Path

from quickstart import run

RUNS = Path("runs/detect")
MODEL = Path("runs/moe/quickstart-pretrain/checkpoints/last.ckpt")
REPORT = RUNS / "quickstart-report"
DETECTORS = {"GLTR": "quickstart/gltr.yaml", "encoder": "detector/encoder_scratch.yaml"}
ATTACKS = {"DFTFooler": "quickstart/dftfooler.yaml", "Homoglyph": "attack/homoglyph.yaml"}
SOURCES = ("embedded", "wild_fewer_layers", "wild_continued", "wild_scratch", "wild_ngram")


def main() -> None:
    """Run the commands, then print the table."""
    start = time.perf_counter()
    if not MODEL.is_file():
        sys.exit(f"{MODEL} is missing; run quickstart.py first, which trains the language model.")
    for name in ("quickstart-GLTR", "quickstart-encoder", REPORT.name, "quickstart-attacked"):
        shutil.rmtree(RUNS / name, ignore_errors=True)
    for name, config in DETECTORS.items():
        run(
            "lit-detect",
            f"fit --config configs/detect/fit/texts.yaml --config configs/detect/{config} --run quickstart-{name}",
        )
    attacked = {name: RUNS / "quickstart-attacked" / f"{name}.jsonl" for name in ATTACKS}
    for name, config in ATTACKS.items():
        run(
            "lit-detect",
            f"attack --limit 50 --config configs/detect/{config} --input texts/embedded/test --output {attacked[name]}",
        )
    checkpoints = " ".join(f"--detectors.{name} {RUNS}/quickstart-{name}/checkpoints/last.ckpt" for name in DETECTORS)
    texts = ", ".join([*(f'"texts/{source}/test"' for source in SOURCES), *(f'"{path}"' for path in attacked.values())])
    run("lit-detect", f"report {checkpoints} --texts '[{texts}]' --output {REPORT}")
    print(table(REPORT / "report.csv"))
    print(
        "AUROC of each generator's texts against human ones, 0.5 is chance; SmolLM2-135M-Instruct is that trained on."
    )
    print("evasion: share of the detected texts that are no longer detected. One seed; brackets are 95 % intervals.")
    print(f"\nReport               {REPORT / 'report.md'}")
    print(f"Pictures             tensorboard --logdir {RUNS}")
    print(
        "Ask a detector       lit-detect predict --ckpt_path "
        f"{RUNS}/quickstart-GLTR/checkpoints/last.ckpt --data.init_args.predict YOUR_TEXTS.csv"
    )
    print(f"\nDone in {time.perf_counter() - start:.0f} s.")


def table(path: Path) -> str:
    """Return a line per generator and attack, a column per detector."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    found: dict[str, dict[str, str]] = {}
    for row in rows:
        for kind, label, metric in (("generator", "generator", "auroc"), ("evasion", "attack", "evasion")):
            if row["table"] == kind and row.get(metric):
                cell = (
                    f"{float(row[metric]):.2f} [{float(row[f'{metric}_low']):.2f}, {float(row[f'{metric}_high']):.2f}]"
                )
                found.setdefault(f"{metric}: {row[label]}", {})[row["detector"]] = cell
    lines = [["", *DETECTORS], *([name, *(cells.get(d, "-") for d in DETECTORS)] for name, cells in found.items())]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join(["", *text, ""])


if __name__ == "__main__":
    main()
