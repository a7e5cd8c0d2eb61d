"""Detection metrics of a set of texts, exact over batches and devices, and their breakdown by condition."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics.utilities import dim_zero_cat

from lit_core.lightning.one_value import OneValue
from lit_detect.functional.conformal import expected_fpr, threshold_at_fpr
from lit_detect.functional.threshold import auroc, check_finite, check_scores, class_scores, share_above
from lit_detect.records import FIELDS, HUMAN, MACHINE, Record, condition, describes_humans, key_part

#: False-positive rates by the suffix of their keys.
RATES = {"01": 0.01, "05": 0.05}
_NAMES = (
    "auroc",
    *(f"{kind}_fpr_{name}" for name in RATES for kind in ("tpr_at", "achieved")),
    "accuracy",
    *(f"{kind}/{name}" for kind in ("precision", "recall", "f1") for name in ("human", "machine")),
)
#: Index of a text whose index is not known.
_UNKNOWN = -2


class DetectionScores(OneValue):
    """Detection metrics of a set of texts, from scores that are gathered over batches and devices.

    Ranks and quantiles need all scores at once, so the metric stores them, with 24 bytes per text. A text that a device
    repeats to fill its last batch counts once.

    ============================  ======  =============================================================================
    value                         unit    meaning
    ============================  ======  =============================================================================
    ``auroc``                     0 to 1  chance that a machine text scores above a human one, ties half
    ``tpr_at_fpr_01``, ``_05``    0 to 1  share of machine texts found at the threshold that fresh human texts reach at
                                          1 % or 5 %, in expectation; it is fixed on the human texts of the same set,
                                          of which it needs 99 or 19
    ``achieved_fpr_01``, ``_05``  0 to 1  rate at which fresh human texts reach that threshold, in expectation; smaller
                                          with ties or few texts
    ``accuracy``                  0 to 1  at the detector's own threshold
    ``precision/{class}``         0 to 1  same; of ``human`` and ``machine``
    ``recall/{class}``            0 to 1  same
    ``f1/{class}``                0 to 1  same
    ============================  ======  =============================================================================

    Values that need a class which the set lacks, or more human texts than it has, are left out. The precision of a
    class is NaN if no text was decided to belong to it.

    Args:
        dtype: Type of the scores; a device without float64 takes float32.
        threshold: The detector's own threshold, the smallest score that counts as machine.
        value: Name of the only value to compute, as a scalar that can be logged, NaN if it is left out; None computes
            all, as a dict.
    """

    is_differentiable = False
    full_state_update = False

    scores: list[Tensor] | Tensor
    labels: list[Tensor] | Tensor
    index: list[Tensor] | Tensor

    def __init__(self, dtype: torch.dtype = torch.float64, threshold: float = 0.0, value: str | None = None) -> None:
        super().__init__(value, _NAMES)
        self._dtype, self.threshold = dtype, float(threshold)
        for name in ("scores", "labels", "index"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, scores: Tensor, labels: Tensor, index: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            scores: Score of each text, higher is machine, ``(batch,)``.
            labels: 0 human, 1 machine, ``(batch,)``; -1 if not known, which leaves the text out.
            index: Index of each text in its set, ``(batch,)``; -1 for a row of padding. None if each row is a text of
                its own, none repeated or padding.
        """
        labels = labels.to(self.device)
        index = torch.full_like(labels, _UNKNOWN, dtype=torch.int64) if index is None else index.to(self.device)
        real = ((index >= 0) | (index == _UNKNOWN)) & (labels >= 0)
        rows = (scores.detach().to(self.device, self._dtype), labels, index)
        for state, values in zip((self.scores, self.labels, self.index), rows, strict=True):
            state.append(values[real])  # type: ignore[union-attr]

    def gathered(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return scores, labels and indices of the texts of all devices, each ``(n,)`` on the CPU, sorted by index.

        All ranks must call this method.
        """
        if not self._is_synced:
            with self.sync_context():
                return self._rows()
        return self._rows()

    def compute(self) -> Any:
        """Return the values of the table above, float32, or the chosen one.

        Raises:
            UserError: If a score is not a finite number, or if there are both classes and all scores are equal.
        """
        scores, labels, _ = self._rows()
        if len(labels.unique()) == 2:
            check_scores(scores)
        values = scores_of(scores[labels == HUMAN], scores[labels == MACHINE], self.threshold)
        return self.selected({name: torch.tensor(value, dtype=torch.float32) for name, value in values.items()})

    def _rows(self) -> tuple[Tensor, Tensor, Tensor]:
        if isinstance(self.scores, list) and not self.scores:
            nothing = torch.zeros(0, dtype=torch.int64)
            return nothing.double(), nothing, nothing
        scores, labels, index = (dim_zero_cat(state).cpu() for state in (self.scores, self.labels, self.index))
        order = index.argsort(stable=True)
        first = torch.ones(len(order), dtype=torch.bool)
        first[1:] = (index[order][1:] != index[order][:-1]) | (index[order][1:] == _UNKNOWN)
        order = order[first]
        return scores[order].double(), labels[order], index[order]


def breakdown(
    scores: Tensor, labels: Tensor, index: Tensor, records: Sequence[Record], threshold: float
) -> dict[str, float]:
    """Return the values of `DetectionScores` by domain, generator, decoding, priming and attack.

    Thresholds at a false-positive rate are set on the human texts that no attack changed. For a domain these are the
    human texts of that domain. For a generator, decoding, priming or attack they are all human texts, which are also
    the other class.

    ==============================  ============================================================================
    key                             values
    ==============================  ============================================================================
    ``domain/{name}/…``             all of `DetectionScores`, where there are two or more domains
    ``generator/{name}/…``          ``auroc``, ``tpr_at_fpr_…`` and ``recall/machine``, where there are two or more
    ``decoding/{name}/…``           same
    ``priming/{name}/…``            same
    ``attack/{name}/…``             same; ``none`` are the texts as they were
    ``tpr_at_fpr_…``                of the whole set, where human texts are attacked too and don't fix the threshold
    ==============================  ============================================================================

    Args:
        scores: Score of each text, ``(n,)``.
        labels: 0 human, 1 machine, ``(n,)``.
        index: Index of the record of each text, ``(n,)``.
        records: The records; only those in ``index`` are read.
        threshold: The detector's own threshold.

    Returns:
        The values by key, as in the table.
    """
    texts = [records[i] for i in index.tolist()]
    human = labels == HUMAN
    machine, clean = ~human, human & torch.tensor([not text.attack for text in texts], dtype=torch.bool)
    values: dict[str, float] = {}
    if bool((human & ~clean).any()):
        whole = scores_of(scores[clean], scores[machine], threshold)
        values |= {name: value for name, value in whole.items() if "fpr" in name}
    for field in FIELDS:
        names = [condition(text, field) for text in texts]
        known = sorted({name for name, is_machine in zip(names, machine.tolist(), strict=True) if is_machine})
        if len(known) < 2:
            continue
        for name in known:
            inside = torch.tensor([other == name for other in names])
            others = clean & inside if describes_humans(field) else clean
            measured = scores_of(scores[others], scores[machine & inside], threshold)
            if not describes_humans(field):
                measured = {key: value for key, value in measured.items() if _of_machine(key)}
            values |= {f"{field}/{key_part(name)}/{key}": value for key, value in measured.items()}
    return values


def scores_of(human: Tensor, machine: Tensor, threshold: float) -> dict[str, float]:
    """Return the values of `DetectionScores` from the scores of human and machine texts.

    Args:
        human: Scores of the human texts, ``(n,)``.
        machine: Scores of the machine texts, ``(m,)``.
        threshold: The detector's own threshold.

    Raises:
        UserError: If a score is not a finite number.
    """
    scores = torch.cat((human, machine))
    check_finite(scores)
    values: dict[str, float] = {}
    if len(human) and len(machine):
        tied = bool((scores == scores[0]).all())  # as in a small condition
        values["auroc"] = 0.5 if tied else auroc(human, machine)
        for name, rate in RATES.items():
            at_rate = threshold_at_fpr(human, rate)
            if at_rate < math.inf:
                values[f"tpr_at_fpr_{name}"] = share_above(machine, at_rate)
                values[f"achieved_fpr_{name}"] = expected_fpr(human, at_rate)
    labels = torch.tensor([HUMAN] * len(human) + [MACHINE] * len(machine))
    absent = {name for name, texts in (("human", human), ("machine", machine)) if not len(texts)}
    decided = class_scores((scores >= threshold).long(), labels) if len(scores) else {}
    return values | {name: value for name, value in decided.items() if name.rpartition("/")[2] not in absent}


def _of_machine(name: str) -> bool:
    return name in ("auroc", "recall/machine") or name.startswith("tpr")
