"""How a trained detector does on the texts by people and by instructed models of ``tools/default_detector``.

    python benchmarks/judged_texts.py --checkpoint runs/detect/encoder/checkpoints/last.ckpt --texts texts.jsonl

``--texts`` is the file of that name that ``tools/default_detector`` writes into its folder of work.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch

from lit_core.statistics.proportion import share_interval
from lit_core.statistics.roc import auroc_interval
from lit_detect.loading import load_checkpoint

#: Domains with a generator each.
PAIRS = (("xsum", "gpt-3.5-turbo"), ("writing", "gpt-3.5-turbo"), ("essays", "chatgpt"))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", required=True, help="a checkpoint of lit-detect fit")
    parser.add_argument("--texts", type=Path, required=True, help="the texts")
    parser.add_argument("--count", type=int, default=60, help="texts of a class and domain, the first ones")
    given = parser.parse_args()
    judge = load_checkpoint(given.checkpoint)
    rows = [json.loads(line) for line in given.texts.read_text(encoding="utf-8").splitlines()]
    print(f"| {judge.name} | AUROC | human texts called machine |\n|---|---|---|")
    for domain, generator in PAIRS:
        classes = [
            [row["text"] for row in rows if row["domain"] == domain and row["generator"] == name][: given.count]
            for name in ("human", generator)
        ]
        human, machine = (judge.detector.score(texts) for texts in classes)
        is_machine = torch.tensor([False] * len(human) + [True] * len(machine))
        ranked = auroc_interval(torch.cat((human, machine)), is_machine)
        flagged = share_interval(human >= judge.threshold)
        print(f"| {domain}, {generator} | {ranked} | {flagged} |", flush=True)


if __name__ == "__main__":
    main()
