"""Makes the default detector and the page of its results.

Run from a checkout, after `pip install pyspellchecker`, as `PYTHONPATH=tools python -m default_detector` with the
folders that `--help` names.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from jsonargparse import auto_cli

from default_detector import tables
from default_detector.changed import attacked as read_attacked
from default_detector.changed import spell_checked
from default_detector.documents import Documents
from default_detector.encoder import vectors
from default_detector.evaluate import Study
from default_detector.measure import measure
from default_detector.ship import ship
from default_detector.texts import brown, gather, write
from lit_core.files.paths import atomic_write

#: The page of results, and the line after which its tables stand.
PAGE, MARK = Path(__file__).parents[2] / "docs" / "results" / "default_detector.md", "<!-- tables -->"


def make(
    fast_detectgpt: str,
    essays: str,
    answers: str,
    attacked: str,
    work: str = "default_detector",
    only_ship: bool = False,
) -> None:
    """Make the default detector, and the tables of docs/results/default_detector.md.

    Args:
        fast_detectgpt: Folder of the data of Fast-DetectGPT's experiments, with files such as
            xsum_gpt-3.5-turbo.raw_data.json.xz.
        essays: Checkout of rexshijaku/chatgpt-generated-text-detection-corpus.
        answers: Folder ``results`` of a checkout of tatsu-lab/alpaca_eval.
        attacked: Folder of files that ``lit-detect attack`` wrote of texts of gpt-3.5-turbo.
        work: Folder for what is measured, where a killed run is resumed.
        only_ship: Whether the tables are left out.
    """
    torch.manual_seed(0)
    folder = Path(work)
    folder.mkdir(parents=True, exist_ok=True)
    rows = gather(fast_detectgpt, essays, answers)
    write(rows, folder / "texts.jsonl")
    long = [row for row in brown(1600) if int(row.pair[-2:]) % 4 == 1][::2]
    documents = Documents(long, folder / "quantities")
    study = Study(rows, measure([row.text for row in rows], folder / "quantities"), documents)
    ship(study)
    atomic_write(folder / "scores.jsonl", "".join(json.dumps(row) + "\n" for row in study.scores()))
    if only_ship:
        return
    changed, checked = read_attacked(Path(attacked)), spell_checked(study.humans())
    more = [*changed, *(row for pair in checked for row in pair)]
    study.quantities |= measure([row.text for row in more], folder / "quantities")
    parts = {
        "Domain and generator both left out": tables.both_left_out(study),
        "A sentence encoder in place of the statistics": tables.encoder(
            study, vectors([row.text for row in rows if not row.is_base], folder / "vectors.pt")
        ),
        "Human texts of a domain that was left out, called machine": tables.humans_by_length(study),
        "Human texts by kind": tables.kinds(study),
        "ChatGPT's texts called machine, by length": tables.found_by_length(study),
        "Answers of instructed generators": tables.answers(study),
        "Base models, by pure sampling": tables.base_models(study),
        "Attacked texts": tables.attacks(study, changed),
        "Human texts after a spell checker": tables.touched(study, checked),
        "Whole human documents": tables.documents(study),
    }
    told = PAGE.read_text(encoding="utf-8").partition(MARK)[0]
    atomic_write(PAGE, f"{told}{MARK}\n" + "".join(f"\n## {name}\n\n{table}\n" for name, table in parts.items()))
    print(PAGE)


auto_cli(make, as_positional=False)
