"""The verb ``attack``: changes texts by an attack and writes them with all edits."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from torch import nn

from lit_core.errors import UserError, check_at_least, checked_first
from lit_core.files.paths import atomic_path
from lit_core.lightning.checksums import weights_sha256
from lit_core.lightning.devices import Devices, share
from lit_core.lm.language_model import LanguageModel
from lit_core.progress import progress
from lit_core.record import output_with_record, write_record
from lit_core.screen import say
from lit_core.seeds import part_seed
from lit_core.work import UnfinishedWork
from lit_detect.attacks import Attack, Attacked
from lit_detect.data.user_texts import open_texts
from lit_detect.formats import TextSource
from lit_detect.records import HUMAN, MACHINE, Record, records_sha256
from lit_detect.scoring.masked_language_model import MaskedLM

Labels = Literal["machine", "human", "both"]
#: Name of the folder of unfinished work beside an output.
WORK = ".{}.attack"


def _check(limit: int | None, seed: int | None) -> None:
    check_at_least(1, limit=limit)
    part_seed(seed)


@checked_first(_check)
def attack(
    attack: Attack,
    output: str,
    input: str | None = None,
    source: TextSource | None = None,
    labels: Labels = "machine",
    limit: int | None = None,
    seed: int | None = None,
    trainer: Devices = Devices(),  # noqa: B008
) -> None:
    """Attack texts and write the attacked records as JSONL, each with its original and all edits.

    To resume a killed run, give the same command again; the number of devices may differ. Equal arguments and texts
    give equal files.

    Args:
        attack: The attack, by class name.
        output: The .jsonl file to write. It must not exist.
        input: Texts to attack: records as .jsonl such as generate writes, a .csv or .tsv with the column text and
            perhaps label, a .txt (a text per line), a folder of .txt, or a folder that ``lit-detect prepare`` wrote, of
            which the test split is taken; null where source is given.
        source: Texts in another format, by class name; null where input is given.
        labels: Labels of the texts that are attacked and written: machine, human or both.
        limit: Largest number of texts to attack, 1 or more; the first ones are taken. Null attacks all.
        seed: Seed of the attack, 0 or more; null for 0. Each text is attacked with this seed, whatever the others are.
        trainer: Devices to run the attack on.

    Raises:
        UserError: If an argument is wrong, the output exists, there is no such text, or another attack is unfinished at
            that output.
        RunFailure: If the disk is full.
    """
    target = output_with_record(output, WORK)
    _check(limit, seed)
    seed = part_seed(seed)
    if target.suffix != ".jsonl":
        raise UserError(f"output is {target}, but must end in .jsonl; rename it.")
    if (input is None) == (source is None):
        raise UserError("input and source are " + ("both given" if input else "both missing") + "; give one of them.")
    records = chosen(_records(input, source), labels, limit)
    settings = {"attack": plain(attack), "seed": seed, "texts": records_sha256(records)}
    fabric = trainer.launch()
    work = UnfinishedWork(
        target.with_name(WORK.format(target.name)),
        key="number",
        settings=settings,
        differs=lambda *_: (
            f"output is {target}, where an attack with other settings or texts is unfinished; remove {work.folder}, or "
            "choose another output."
        ),
        busy=f"output is {target}, which another attack is writing; wait for it.",
        rank=fabric.global_rank,
        group=fabric,
        values=("record",),
    )
    with work:
        missing = work.missing(range(len(records)))
        mine = [missing[i] for i in share(len(missing), fabric.global_rank, fabric.world_size)]
        task = f"Attacking {len(mine):,} texts on this device"
        for number in progress(mine, attack.name, "texts", task, shown=fabric.is_global_zero):
            attacked = attacked_record(records[number], attack.name, attack(records[number].text, seed))
            work.append([{"number": number, "record": attacked.to_dict()}])
        written = work.finish(lambda rows: _write(target, [rows[number]["record"] for number in range(len(records))]))
    if written is not None:
        _summarise(attack, target, written)


def chosen(records: Iterable[Record], labels: Labels, limit: int | None) -> list[Record]:
    """Return the records to be attacked, in the given order.

    Args:
        records: All records.
        labels: Labels to attack: machine, human, or both, which includes records without a label.
        limit: Largest number of records; None takes all.

    Raises:
        UserError: If no record has such a label.
    """
    wanted = {"machine": (MACHINE,), "human": (HUMAN,), "both": (HUMAN, MACHINE, None)}[labels]
    selected = [record for record in records if record.label in wanted]
    if not selected:
        raise UserError(f"labels is {labels}, but there is no such text; set it to both, or give other texts.")
    return selected[:limit]


def attacked_record(record: Record, name: str, attacked: Attacked) -> Record:
    """Return the record of an attacked text, with the original and the edits in its ``meta``.

    Args:
        record: The record of the original.
        name: Name of the attack.
        attacked: Result of the attack on its text.
    """
    meta = {
        **record.meta,
        "original": record.text,
        "edits": [[edit.start, edit.end, edit.after] for edit in attacked.edits],
        "queries": attacked.queries,
        "attacked": dict(attacked.meta),
    }
    return replace(record, text=attacked.text, attack=f"{record.attack} + {name}" if record.attack else name, meta=meta)


def plain(thing: Any) -> Any:
    """Return a component's class name and public attributes as plain Python values, recursively.

    Language models and networks are represented by their name and a hash of their weights.
    """
    if thing is None or isinstance(thing, (bool, int, float, str)):
        return thing
    if isinstance(thing, Mapping):
        return {str(key): plain(value) for key, value in thing.items()}
    if isinstance(thing, (list, tuple)):
        return [plain(value) for value in thing]
    name = type(thing).__name__
    if isinstance(thing, (LanguageModel, MaskedLM)):
        return {"class": name, "name": thing.name, "sha256": weights_sha256(thing.module)}
    if isinstance(thing, nn.Module):  # a detector; its weights do not include the language models that it uses
        models = plain(getattr(thing, "language_models", ()))
        return {"class": name, "name": plain(thing.name), "sha256": weights_sha256(thing), "language_models": models}
    if not type(thing).__module__.startswith("lit_detect"):
        return name
    public = {key: value for key, value in sorted(vars(thing).items()) if not key.startswith("_") and key != "lexicon"}
    return {"class": name} | {key: plain(value) for key, value in public.items()}


def _records(path: str | None, source: TextSource | None) -> Iterable[Record]:
    if path is None:
        assert source is not None
        return source.records()
    return open_texts(path, "input").records()


def _write(target: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Write the attacked records as JSONL, and the record of the command; return the former."""
    with atomic_path(target) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    write_record(target)
    return rows


def _summarise(attack: Attack, target: Path, rows: Sequence[dict[str, Any]]) -> None:
    changed = sum(row["text"] != row["meta"]["original"] for row in rows)
    edits = sum(len(row["meta"]["edits"]) for row in rows) / len(rows)
    queries = sum(row["meta"]["queries"] for row in rows) / len(rows)
    asked = f", {queries:.1f} queries of the detector" if queries else ""
    say("", f"Attack   {attack.name}")
    say(f"Changed  {changed:,} of {len(rows):,} texts, {edits:.1f} edits a text{asked}", f"In       {target}")
