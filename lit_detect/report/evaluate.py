"""Evaluation of a detector for a report: metrics by condition and evasion rates of attacks, with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from lit_core.errors import UserError
from lit_core.statistics.interval import Interval
from lit_core.statistics.proportion import f1_interval, share_interval
from lit_core.statistics.roc import auroc_interval, tpr_interval
from lit_detect.functional.conformal import expected_fpr, threshold_at_fpr
from lit_detect.functional.threshold import class_scores
from lit_detect.metrics import RATES
from lit_detect.records import HUMAN, MACHINE, NONE, Record, condition, describes_humans

#: A value of a table: a number with an interval, or a plain number.
Value = Interval | float


@dataclass(frozen=True)
class Evaluated:
    """The scores of a detector on the texts of a report.

    Args:
        name: Name of the detector in the report.
        detector: Class and model of the detector, its own name.
        records: The scored texts.
        scores: Score of each text, float64 of shape ``(n,)``.
        threshold: The detector's own threshold.
        seconds: Mean time per text, in seconds.
        abstains: Number of further texts, which are too short for the detector.
        in_windows: Number of texts that are longer than what it reads at once.
    """

    name: str
    detector: str
    records: Sequence[Record]
    scores: Tensor
    threshold: float
    seconds: float
    abstains: int
    in_windows: int = 0

    @cached_property
    def labels(self) -> Tensor:
        """0 human, 1 machine, ``(n,)``."""
        return torch.tensor([record.label for record in self.records])

    @cached_property
    def domains(self) -> Tensor:
        """Id of the domain of each text, ``(n,)``; each domain has its own threshold."""
        return _numbers([condition(record, "domain") for record in self.records])

    @cached_property
    def groups(self) -> Tensor:
        """Id of the group of each text, ``(n,)``: its pair or document, or the text and its attacked ones."""
        return _numbers([record.pair_id or name for record, name in zip(self.records, self.originals, strict=True)])

    @cached_property
    def originals(self) -> list[str]:
        """Id of the original of each text; see the function `originals`."""
        return originals(self.records)

    @cached_property
    def attacked(self) -> Tensor:
        """Whether an attack changed each text, bool of shape ``(n,)``."""
        return torch.tensor([bool(record.attack) for record in self.records])

    @cached_property
    def thresholds(self) -> dict[str, Tensor]:
        """Threshold of each text at the rates of `RATES`, and the rate at which fresh human texts reach it, ``(n, 2)``.

        It is fixed on the clean human texts of the text's domain; infinity and NaN if these are too few.
        """
        found = {}
        for name, rate in RATES.items():
            at = torch.full((len(self.scores), 2), math.nan, dtype=torch.float64)
            for domain in self.domains.unique():
                inside = self.domains == domain
                clean = self.scores[inside & (self.labels == HUMAN) & ~self.attacked]
                threshold = threshold_at_fpr(clean, rate)
                expected = expected_fpr(clean, threshold) if threshold < math.inf else math.nan
                at[inside] = torch.tensor([threshold, expected], dtype=torch.float64)
            found[name] = at
        return found

    @cached_property
    def detected_at(self) -> dict[str, Tensor]:
        """Decisions for each text, bool of shape ``(n,)``, by threshold.

        The key ``own`` is the detector's own threshold. The keys of `RATES` are those of `thresholds`.
        """
        at_rates = {name: self.scores >= at[:, 0] for name, at in self.thresholds.items()}
        return {"own": self.scores >= self.threshold, **at_rates}

    def condition_is(self, field: str, name: str) -> Tensor:
        """Return which texts have a condition, bool of shape ``(n,)``."""
        return torch.tensor([condition(record, field) == name for record in self.records])

    def conditions(self, field: str) -> list[str]:
        """Return the conditions of the machine texts in a field, with ``none`` first and the others sorted by name."""
        machine = (record for record in self.records if record.label == MACHINE)
        return sorted({condition(record, field) for record in machine}, key=lambda name: (name != NONE, name))


def cell(evaluated: Evaluated, machine: Tensor, intervals: bool = True) -> dict[str, Value]:
    """Return the metrics of a detector on some machine texts and the clean human texts of their domains.

    Args:
        evaluated: Scores of the detector.
        machine: The machine texts, bool of shape ``(n,)``.
        intervals: Whether the values have intervals; otherwise they are plain numbers.

    Returns:
        ``auroc``, ``tpr_at_fpr_01`` and ``_05`` with a threshold for each domain, where fresh human texts pass at that
        rate on average; ``achieved_fpr_01`` and ``_05``, the rates at which they reach the `Evaluated.thresholds`;
        ``f1/machine``, ``recall/machine``, ``recall/human`` and ``precision/machine`` at the detector's own threshold;
        ``human`` and ``machine``, the numbers of texts.
    """
    domains = torch.isin(evaluated.domains, evaluated.domains[machine].unique())
    chosen = (domains & (evaluated.labels == HUMAN) & ~evaluated.attacked) | machine
    scores, labels, groups = evaluated.scores[chosen], evaluated.labels[chosen], evaluated.groups[chosen]
    decisions = evaluated.detected_at["own"][chosen].long()
    is_machine = labels == MACHINE
    found: dict[str, Interval] = {"auroc": auroc_interval(scores, is_machine, groups)}
    for name, rate in RATES.items():
        found[f"tpr_at_fpr_{name}"] = tpr_interval(scores, is_machine, rate, groups, evaluated.domains[chosen])
    found["f1/machine"] = f1_interval(decisions == MACHINE, is_machine, groups)
    for name, number in (("human", HUMAN), ("machine", MACHINE)):
        own = labels == number
        found[f"recall/{name}"] = share_interval(decisions[own] == number, groups[own])
    values: dict[str, Value] = {name: one if intervals else one.mean for name, one in found.items()}
    values["precision/machine"] = class_scores(decisions, labels)["precision/machine"]
    for name in RATES:
        values[f"achieved_fpr_{name}"] = float(evaluated.thresholds[name][chosen][labels == HUMAN][:, 1].mean())
    return values | {"human": float((labels == HUMAN).sum()), "machine": float((labels == MACHINE).sum())}


def conditions(evaluated: Evaluated, fields: Sequence[str]) -> list[tuple[str, str, dict[str, Value]]]:
    """Return field, condition and metrics: of all clean texts, and of each condition of the fields.

    Metrics of a condition other than an attack are those of the clean texts. If the condition describes human texts,
    such as a language, they are compared with human texts of the same condition, and the condition is left out if a
    domain has none.

    Args:
        evaluated: Scores of the detector.
        fields: The fields; see `lit_detect.records.condition`.
    """
    machine, clean = evaluated.labels == MACHINE, ~evaluated.attacked
    rows = [("all", "clean", cell(evaluated, machine & clean))]
    for field in fields:
        names = evaluated.conditions(field)
        if len(names) < 2:
            continue
        for name in names:
            inside = evaluated.condition_is(field, name)
            chosen = machine & inside & (clean if field != "attack" else torch.ones_like(clean))
            compared = evaluated
            if describes_humans(field) and field != "domain":
                compared, chosen = _only(evaluated, inside.nonzero().flatten().tolist()), chosen[inside]
            if bool(chosen.any()) and _has_humans(compared):
                rows.append((field, name, cell(compared, chosen)))
    return rows


def _has_humans(evaluated: Evaluated) -> bool:
    """Return whether each domain has clean human texts, on which its thresholds are set."""
    clean = evaluated.domains[(evaluated.labels == HUMAN) & ~evaluated.attacked]
    return bool(torch.isin(evaluated.domains, clean).all())


def crossed(evaluated: Evaluated, fields: Sequence[str]) -> list[tuple[dict[str, str], dict[str, Value]]]:
    """Return the metrics of each combination of conditions that machine texts have, without intervals.

    Args:
        evaluated: Scores of the detector.
        fields: The fields whose conditions are combined.

    Returns:
        The conditions by field, and the values of `cell`, of each combination.
    """
    machine = evaluated.labels == MACHINE
    names = [tuple(condition(record, field) for field in fields) for record in evaluated.records]
    rows = []
    for combination in sorted({name for name, is_machine in zip(names, machine.tolist(), strict=True) if is_machine}):
        chosen = machine & torch.tensor([name == combination for name in names])
        rows.append((dict(zip(fields, combination, strict=True)), cell(evaluated, chosen, intervals=False)))
    return rows


def attacks(evaluated: Evaluated) -> list[tuple[str, dict[str, Value]]]:
    """Return the evasion rate of each attack, over the machine texts whose originals are among the records.

    Args:
        evaluated: Scores of the detector.

    Returns:
        By attack: ``evasion`` at the detector's own threshold; ``evasion_at_fpr_05`` at that which 5 % of fresh human
        texts of the domain reach; ``recall_before``, ``recall_after``; the numbers ``texts`` and ``detected``. A rate
        is NaN if no original is detected.
    """
    ids = evaluated.originals
    index_of = {ids[i]: i for i, record in enumerate(evaluated.records) if not record.attack}
    rows = []
    for name in evaluated.conditions("attack"):
        pairs = [
            (index_of[ids[i]], i)
            for i, record in enumerate(evaluated.records)
            if record.attack == name and record.label == MACHINE and ids[i] in index_of
        ]
        if not pairs:
            continue
        before, after = torch.tensor(pairs).unbind(1)
        groups = evaluated.groups[before]
        first, second = (evaluated.detected_at["own"][indices] for indices in (before, after))
        first_at, second_at = (evaluated.detected_at["05"][indices] for indices in (before, after))
        values: dict[str, Value] = {
            "texts": float(len(pairs)),
            "detected": float(first.sum()),
            "evasion": share_interval(~second[first], groups[first]),
            "recall_before": share_interval(first, groups),
            "recall_after": share_interval(second, groups),
            "evasion_at_fpr_05": share_interval(~second_at[first_at], groups[first_at]),
        }
        rows.append((name, values))
    return rows


def original(record: Record) -> str:
    """Return an id that a text shares with the attacked texts that were made from it."""
    for key in ("original_id", "adv_source_id"):  # RAID has the latter
        if record.meta.get(key):
            return f"{record.source}\n{record.meta[key]}"
    return f"{record.source}\n{record.id}"


def originals(records: Sequence[Record]) -> list[str]:
    """Return the id of the original of each record; different originals with the same id are told apart by their text.

    Ids are unique within a file, so those of several files may be equal. Records of `lit-detect attack` have the text
    that was attacked.

    Args:
        records: Texts with and without attacks.

    Raises:
        UserError: If it is unclear which of several texts an attack changed.
    """
    texts: dict[str, set[str]] = {}
    for record in records:
        if not record.attack:
            texts.setdefault(original(record), set()).add(record.text)
    ids = []
    for record in records:
        name = original(record)
        if len(texts.get(name, ())) > 1:
            text = record.meta.get("original") if record.attack else record.text
            if text not in texts[name]:
                raise UserError(
                    f"The attacked text {record.id!r} was made of one of {len(texts[name])} texts with that id, and it "
                    "is unclear which. Give each text an id of its own and attack them again."
                )
            name = f"{name}\n{text}"
        ids.append(name)
    return ids


def _only(evaluated: Evaluated, keep: Sequence[int]) -> Evaluated:
    return replace(evaluated, records=[evaluated.records[i] for i in keep], scores=evaluated.scores[list(keep)])


def _numbers(names: Sequence[str]) -> Tensor:
    known = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return torch.tensor([known[name] for name in names], dtype=torch.int64)
