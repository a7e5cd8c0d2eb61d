"""A cell of the detection study: one detector, trained and tested under many conditions in one process.

After the experiments of Pu et al. 2023, Deepfake Text Detection: Limitations and Opportunities, arXiv 2210.09421.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from lit_core.errors import UserError
from lit_core.screen import say
from lit_core.study.parts import Part
from lit_detect.attacks import Attack
from lit_detect.detectors import TrainedDetector
from lit_detect.metrics import scores_of
from lit_detect.records import HUMAN, MACHINE, NONE, Record, condition
from lit_detect.study.judge import Judge, attack_all, judge_of
from lit_detect.study.options import DetectionOptions, DetectorRecipe
from lit_detect.study.texts import in_fold, is_of, records_of, sample, without_twins


def experiment(seed: int, options: DetectionOptions) -> list[dict[str, Any]]:
    """Train a detector on some decodings of one generator, and test it on others, in the wild and under attack.

    Args:
        seed: Seed of the training; with several folds, also the choice of the fold that is tested on.
        options: What the cell varies, and what all cells share.

    Returns:
        A row per condition, with the labels ``condition`` and ``value``.

    Raises:
        UserError: If no text has the decodings and the priming.
    """
    decodings, priming = options.decodings, options.priming
    records = records_of(options.pairs)
    train = [r for r in records if r.split == "train" and is_of(r, decodings, priming)]
    test = [r for r in records if r.split == "test" and in_fold(r, seed, options.folds)]
    train = _of_each_class(train, options.train_texts)
    test = without_twins(test, train)

    def tested(records: Sequence[Record]) -> list[Record]:
        return list(records) if options.test_texts is None else _of_each_class(records, options.test_texts)

    own = tested([r for r in test if is_of(r, decodings, priming)])
    if not {HUMAN, MACHINE} <= {r.label for r in train} & {r.label for r in own}:
        there = sorted({f"{condition(r, 'decoding')} from {condition(r, 'priming')}" for r in records if r.label})
        raise UserError(
            f"trained_on is {options.trained_on}, priming {priming}, but the texts have {', '.join(there)}."
        )
    judge = judge_of(
        options.detectors[options.detector],
        tuple((record.text, record.label) for record in train),
        options.recipe or DetectorRecipe(),
        seed,
        options.adversarial if options.defence == "adversarial" else None,
        options.defence == "normalized",
    )
    rows = [_row("own", "own", judge, own) | _number("priming", priming)]
    for field, trained in (("decoding", decodings), ("priming", [priming])):
        for value in sorted({condition(r, field) for r in test if r.label == MACHINE}):
            kind = (decodings, value) if field == "priming" else ([value], priming)
            others = tested([r for r in test if is_of(r, *kind)])
            if value not in trained and {HUMAN, MACHINE} <= {r.label for r in others}:
                number = _number("priming", value) if field == "priming" else {}
                rows.append(_row(field, value, judge, others) | number)
    made = {(condition(r, "decoding"), condition(r, "priming")) for r in test if r.label == MACHINE}
    for decoding, tokens in sorted(made, key=lambda pair: (pair[0], *_number("", pair[1]).values())):
        others = tested([r for r in test if is_of(r, [decoding], tokens)])
        if len(made) > 1 and HUMAN in {r.label for r in others}:
            rows.append(_row("decoding and priming", f"{decoding} from {tokens}", judge, others))
    for name, source in (options.wild or {}).items():
        fold = [r for r in records_of(source) if in_fold(r, seed, options.folds)]
        theirs = tested(without_twins(fold, train))
        if {HUMAN, MACHINE} <= {r.label for r in theirs}:
            rows.append(_row("wild", name, judge, theirs))
        elif {HUMAN, MACHINE} <= {r.label for r in fold}:
            say(f"wild.{name} has no pair left whose human text was not trained on; it is left out.")
    for words in options.lengths or ():
        cut = [replace(r, text=" ".join(r.text.split()[:words])) for r in own]
        rows.append(_row("length", str(words), judge, cut) | {"words": float(words)})
    for row in rows[1:]:
        row["f1_drop"] = rows[0]["f1_machine"] - row["f1_machine"]
        row["recall_drop"] = rows[0]["recall_machine"] - row["recall_machine"]
        row["precision_drop"] = rows[0]["precision_machine"] - row["precision_machine"]
        row["drop_beyond_precision"] = row["recall_drop"] - row["precision_drop"]
    for name, attack in (options.attacks or {}).items():
        few = attack.accepts("detector") and not isinstance(judge.task.detector, TrainedDetector)
        machine = sample(
            [r for r in own if r.label == MACHINE], options.queried_texts if few else options.attacked_texts
        )
        rows.append(_attacked_row(name, attack, judge, machine, [r for r in own if r.label == HUMAN]))
    judge.tell_read_in_part()
    digest = hashlib.sha256("\0".join(r.text for r in (*train, *own)).encode()).hexdigest()[:16]
    return [{"data": digest} | row for row in rows]


def _of_each_class(records: Sequence[Record], most: int | None) -> list[Record]:
    """Return at most `most` records of each class, the human ones first."""
    return [r for label in (HUMAN, MACHINE) for r in sample([r for r in records if r.label == label], most)]


def _number(name: str, condition: str) -> dict[str, float]:
    """Return a condition as a number under a name; empty if it is not known."""
    return {} if condition == NONE else {name: float(condition)}


def _row(what: str, value: str, judge: Judge, records: Sequence[Record]) -> dict[str, Any]:
    scores = judge(record.text for record in records)
    labels = torch.tensor([record.label for record in records])
    measured = scores_of(scores[labels == HUMAN], scores[labels == MACHINE], judge.threshold)
    return {"condition": what, "value": value, "texts": float(len(records))} | _plain(measured)


def _attacked_row(
    name: str, attack: Part[Attack], judge: Judge, machine: Sequence[Record], human: Sequence[Record]
) -> dict[str, Any]:
    texts = [record.text for record in machine]
    attacked = attack_all(attack, texts, judge)
    before, after = judge(texts), judge(each.text for each in attacked)
    scores = scores_of(judge(record.text for record in human), after, judge.threshold)
    detected = before >= judge.threshold
    missed = float((detected & (after < judge.threshold)).sum())
    edits, queries = (
        sum(counts) / len(attacked) for counts in ([len(a.edits) for a in attacked], [a.queries for a in attacked])
    )
    values = {
        "texts": float(len(machine)),
        "evasion": missed / float(detected.sum()) if detected.any() else float("nan"),
        "recall_before": float(detected.double().mean()),
        "edits": edits,
        "queries": queries,
        "score_shift": float((after - before).mean()),
    }
    return {"condition": "attack", "value": name} | _plain(scores) | values


def _plain(scores: Mapping[str, float]) -> dict[str, float]:
    """Return values under names without slashes, as columns of a table."""
    return {name.replace("/", "_"): float(value) for name, value in scores.items()}
