"""What a report says of a detector: scores under each condition, and what attacks achieve, with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from lit_core.errors import UserError
from lit_core.study.statistics import Interval
from lit_detect.functional.bootstrap import (
    auroc_statistic,
    bootstrap_many,
    f1_statistic,
    ratio_statistic,
    tpr_statistic,
)
from lit_detect.functional.threshold import class_scores, threshold_at_fpr
from lit_detect.metrics import RATES
from lit_detect.records import HUMAN, MACHINE, NONE, Record, condition, describes_humans

#: A value of a table: with an interval, or a plain number.
Value = Interval | float


@dataclass(frozen=True)
class Evaluated:
    """A detector's scores of texts.

    Args:
        name: Name of the detector in the report.
        is_a: Class and backbone of the detector.
        records: The texts that it scores, in order.
        scores: Their scores, float64 ``(n,)``.
        threshold: The detector's own threshold.
        seconds: Mean time per text.
        abstains: Number of further texts that are too short for it.
        resamples: How often to draw for an interval.
        seed: Seed of the drawing.
    """

    name: str
    is_a: str
    records: Sequence[Record]
    scores: Tensor
    threshold: float
    seconds: float
    abstains: int
    resamples: int = 1000
    seed: int = 0

    @cached_property
    def labels(self) -> Tensor:
        """0 human, 1 machine, ``(n,)``."""
        return torch.tensor([record.label for record in self.records])

    @cached_property
    def domains(self) -> Tensor:
        """Number of the domain of each text, ``(n,)``; each has its own threshold."""
        return _numbers([condition(record, "domain") for record in self.records])

    @cached_property
    def groups(self) -> Tensor:
        """Number of what is drawn together, ``(n,)``: texts of a pair or document, and a text and its attacked ones."""
        return _numbers([record.pair_id or name for record, name in zip(self.records, self.originals, strict=True)])

    @cached_property
    def originals(self) -> list[str]:
        """Name of the text that each text is or was made of; see `originals`."""
        return originals(self.records)

    @cached_property
    def attacked(self) -> Tensor:
        """Whether an attack changed the text, bool ``(n,)``."""
        return torch.tensor([bool(record.attack) for record in self.records])

    @cached_property
    def detected_at(self) -> dict[str, Tensor]:
        """Whether each text counts as machine, bool ``(n,)``: by its domain's threshold at each rate, or the own."""
        decisions = {"own": self.scores >= self.threshold}
        for name, rate in RATES.items():
            thresholds = torch.empty_like(self.scores)
            for domain in self.domains.unique():
                inside = self.domains == domain
                clean = self.scores[inside & (self.labels == HUMAN) & ~self.attacked]
                thresholds[inside] = threshold_at_fpr(clean, rate)
            decisions[name] = self.scores >= thresholds
        return decisions

    def condition_is(self, field: str, name: str) -> Tensor:
        """Tell which texts have a condition, bool ``(n,)``."""
        return torch.tensor([condition(record, field) == name for record in self.records])

    def conditions(self, field: str) -> list[str]:
        """Return the names that the machine texts have of a condition; ``none`` comes first, then by name."""
        machine = (record for record in self.records if record.label == MACHINE)
        return sorted({condition(record, field) for record in machine}, key=lambda name: (name != NONE, name))


def cell(found: Evaluated, machine: Tensor, intervals: bool = True) -> dict[str, Value]:
    """Return what a detector is worth on some machine texts, against the clean human texts of their domains.

    Args:
        found: Its scores.
        machine: Which machine texts, bool ``(n,)``.
        intervals: Whether intervals are drawn; otherwise plain numbers are given.

    Returns:
        ``auroc``, ``tpr_at_fpr_01`` and ``_05`` with the thresholds of the domains, ``achieved_fpr_01`` and ``_05``;
        ``f1/machine``, ``recall/machine``, ``recall/human`` and ``precision/machine`` at the detector's own threshold;
        ``human`` and ``machine``, the numbers of texts.
    """
    domains = torch.isin(found.domains, found.domains[machine].unique())
    chosen = (domains & (found.labels == HUMAN) & ~found.attacked) | machine
    scores, labels, groups = found.scores[chosen], found.labels[chosen], found.groups[chosen]
    decisions = found.detected_at["own"][chosen].long()
    statistics = {"auroc": auroc_statistic(scores, labels)}
    for name, rate in RATES.items():
        statistics[f"tpr_at_fpr_{name}"] = tpr_statistic(scores, labels, rate, found.domains[chosen])
    statistics["f1/machine"] = f1_statistic(decisions, labels)
    for name, number in (("human", HUMAN), ("machine", MACHINE)):
        true = (labels == number).double()
        statistics[f"recall/{name}"] = ratio_statistic(true * (decisions == number), true)
    values: dict[str, Value] = {}
    if intervals:
        values |= bootstrap_many(statistics, labels, groups, found.resamples, seed=found.seed)
    else:
        one = torch.ones(1, len(labels), dtype=torch.float64)
        values |= {name: float(statistic(one)) for name, statistic in statistics.items()}
    values["precision/machine"] = class_scores(decisions, labels)["precision/machine"]
    for name in RATES:
        flagged = found.detected_at[name][chosen][labels == HUMAN]
        values[f"achieved_fpr_{name}"] = float(flagged.double().mean()) if len(flagged) else math.nan
    return values | {"human": float((labels == HUMAN).sum()), "machine": float((labels == MACHINE).sum())}


def conditions(found: Evaluated, fields: Sequence[str]) -> list[tuple[str, str, dict[str, Value]]]:
    """Return field, condition and values: of all clean texts, then one condition at a time.

    A condition that is no attack is looked at on clean texts; one that describes humans, such as a language, on the
    human texts that have it, and left out where a domain has none.
    """
    machine, clean = found.labels == MACHINE, ~found.attacked
    rows = [("all", "clean", cell(found, machine & clean))]
    for field in fields:
        names = found.conditions(field)
        if len(names) < 2:
            continue
        for name in names:
            inside = found.condition_is(field, name)
            chosen = machine & inside & (clean if field != "attack" else torch.ones_like(clean))
            theirs = found
            if describes_humans(field) and field != "domain":
                keep = inside.nonzero().flatten().tolist()
                theirs, chosen = _only(found, keep), chosen[inside]
            if bool(chosen.any()) and _has_humans(theirs):
                rows.append((field, name, cell(theirs, chosen)))
    return rows


def _has_humans(found: Evaluated) -> bool:
    """Tell whether each domain has clean human texts, on which its thresholds are fixed."""
    clean = found.domains[(found.labels == HUMAN) & ~found.attacked]
    return bool(torch.isin(found.domains, clean).all())


def crossed(found: Evaluated, fields: Sequence[str]) -> list[tuple[dict[str, str], dict[str, Value]]]:
    """Return each combination of conditions that machine texts have, with its values, without intervals."""
    machine = found.labels == MACHINE
    names = [tuple(condition(record, field) for field in fields) for record in found.records]
    rows = []
    for combination in sorted({name for name, is_machine in zip(names, machine.tolist(), strict=True) if is_machine}):
        chosen = machine & torch.tensor([name == combination for name in names])
        rows.append((dict(zip(fields, combination, strict=True)), cell(found, chosen, intervals=False)))
    return rows


def attacks(found: Evaluated) -> list[tuple[str, dict[str, Value]]]:
    """Return what each attack achieves on the machine texts whose originals are there.

    Returns:
        By attack: ``evasion``, of the texts detected before at the detector's own threshold, ``evasion_at_fpr_05`` at
        that of 5 % of the domain's human texts; ``recall_before``, ``recall_after``; ``texts`` and ``detected``.
        NaN where no text is detected before.
    """
    names = found.originals
    places = {names[number]: number for number, record in enumerate(found.records) if not record.attack}
    rows = []
    for name in found.conditions("attack"):
        pairs = [
            (places[names[number]], number)
            for number, record in enumerate(found.records)
            if record.attack == name and record.label == MACHINE and names[number] in places
        ]
        if not pairs:
            continue
        before, after = torch.tensor(pairs).unbind(1)
        groups, labels, every = found.groups[before], found.labels[before], torch.ones(len(pairs))
        first, second = (found.detected_at["own"][place].double() for place in (before, after))
        at_rate = [found.detected_at["05"][place].double() for place in (before, after)]
        statistics = {
            "evasion": ratio_statistic(first * (1 - second), first),
            "recall_before": ratio_statistic(first, every),
            "recall_after": ratio_statistic(second, every),
            "evasion_at_fpr_05": ratio_statistic(at_rate[0] * (1 - at_rate[1]), at_rate[0]),
        }
        values: dict[str, Value] = {"texts": float(len(pairs)), "detected": float(first.sum())}
        values |= bootstrap_many(statistics, labels, groups, found.resamples, seed=found.seed)
        rows.append((name, values))
    return rows


def original(record: Record) -> str:
    """Return what names a text and the attacked ones that were made of it."""
    for key in ("original_id", "adv_source_id"):  # the latter in RAID
        if record.meta.get(key):
            return f"{record.source}\n{record.meta[key]}"
    return f"{record.source}\n{record.id}"


def originals(records: Sequence[Record]) -> list[str]:
    """Return what `original` does for each record; originals of one name that differ are told apart by their text.

    Names are given within a file, so those of several files may be equal. What `lit-detect attack` wrote holds the
    text that it attacked.

    Args:
        records: Texts with and without attacks.

    Raises:
        UserError: If it is unclear which of several texts an attack changed.
    """
    texts: dict[str, set[str]] = {}
    for record in records:
        if not record.attack:
            texts.setdefault(original(record), set()).add(record.text)
    names = []
    for record in records:
        name = original(record)
        if len(texts.get(name, ())) > 1:
            text = record.meta.get("original") if record.attack else record.text
            if text not in texts[name]:
                raise UserError(
                    f"The attacked text {record.id!r} was made of one of {len(texts[name])} texts with that id, and it "
                    "is unclear which; give each text an id of its own and attack them again."
                )
            name = f"{name}\n{text}"
        names.append(name)
    return names


def _only(found: Evaluated, keep: Sequence[int]) -> Evaluated:
    records, scores = [found.records[number] for number in keep], found.scores[list(keep)]
    rest = (found.threshold, found.seconds, found.abstains, found.resamples, found.seed)
    return Evaluated(found.name, found.is_a, records, scores, *rest)


def _numbers(names: Sequence[str]) -> Tensor:
    known = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return torch.tensor([known[name] for name in names], dtype=torch.int64)
