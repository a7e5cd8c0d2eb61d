"""The verb ``calibrate``: a threshold at a chosen false-positive rate, on the user's own human text."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lit_core.errors import UserError, did_you_mean
from lit_core.files.paths import atomic_write, file_sha256, resolve_data_path
from lit_detect.conditions import condition
from lit_detect.data.text_shards import TextSet
from lit_detect.data.user_texts import TextFile
from lit_detect.functional.calibration import Platt, check_rising, fit_platt, rate_interval
from lit_detect.functional.threshold import check_scores, false_positive_rate, threshold_at_fpr
from lit_detect.records import HUMAN, MACHINE

#: Name of the one group where no column names any.
ALL = ""
#: How the threshold follows from the scores, for whoever reads the file.
RULE = (
    "machine is a score >= threshold; the threshold is the smallest float64 at which the share of human scores >= it "
    "is at most fpr"
)


@dataclass(frozen=True)
class Group:
    """The threshold of a group of texts.

    Args:
        threshold: Machine is a score of so much or more.
        achieved_fpr: Share of the group's human texts that count as machine.
        low: Lower end of the 95 % interval of that rate, after Clopper and Pearson.
        high: Upper end.
        n: Number of the group's human texts.
    """

    threshold: float
    achieved_fpr: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Calibration:
    """Thresholds of a detector by group of texts, as they stand in a file.

    Args:
        fpr: Wanted false-positive rate.
        detector: Name of the detector.
        checkpoint_sha256: Hash of its checkpoint.
        groups: Thresholds by group; one, named by the empty string, where no column names groups.
        by: Column that names the groups; None where there is one.
        platt: Map of scores to probabilities; None where no machine texts were given.
    """

    fpr: float
    detector: str
    checkpoint_sha256: str
    groups: Mapping[str, Group]
    by: str | None = None
    platt: Platt | None = None

    def decide(self, score: float, group: str = ALL) -> bool:
        """Tell whether a score is that of a machine.

        Args:
            score: The score.
            group: Group of the text; looked at only where the calibration is by group.

        Raises:
            UserError: If there is no threshold for the group.
        """
        if self.by is None:
            return score >= self.groups[ALL].threshold
        self.check_groups([group])
        return score >= self.groups[group].threshold

    def check_groups(self, groups: Iterable[str]) -> None:
        """Refuse groups that have no threshold, where the calibration is by group."""
        for group in groups if self.by is not None else ():
            if group not in self.groups:
                raise UserError(
                    f"{self.by} is {group!r}, but there are thresholds for {', '.join(self.groups)} only; name the "
                    f"column by `data.group_column`, calibrate with human texts of that {self.by}, or leave its texts "
                    f"out.{did_you_mean(group, self.groups)}"
                )

    def check(self, detector: str) -> None:
        """Refuse a detector that the thresholds were not made for."""
        if detector != self.detector:
            raise UserError(
                f"`calibration` has thresholds of {self.detector}, but the detector is {detector}; calibrate this one."
            )

    def check_checkpoint(self, path: str | Path) -> None:
        """Refuse a checkpoint that the thresholds were not made for; one trained anew scores otherwise."""
        if file_sha256(Path(path)) != self.checkpoint_sha256:
            raise UserError(
                f"`calibration` is of another checkpoint of {self.detector} than {path}; calibrate this one."
            )

    @property
    def threshold(self) -> float:
        """The threshold of all texts.

        Raises:
            UserError: If each group has its own.
        """
        if self.by is not None:
            raise UserError(
                f"`calibration` has a threshold for each {self.by}, by which predict decides but no test does; leave "
                "it out, or calibrate without `by`."
            )
        return self.groups[ALL].threshold

    def save(self, path: str | Path) -> None:
        """Write the calibration as JSON, whole or not at all."""
        about = {"fpr": self.fpr, "by": self.by, "rule": RULE}
        about |= {"detector": self.detector, "checkpoint_sha256": self.checkpoint_sha256}
        groups = {name: asdict(group) for name, group in self.groups.items()}
        platt = None if self.platt is None else self.platt._asdict()
        atomic_write(Path(path), json.dumps({**about, "groups": groups, "platt": platt}, indent=2) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read a calibration.

        Raises:
            UserError: If there is no such file, or it holds none.
        """
        try:
            found: dict[str, Any] = json.loads(Path(path).read_bytes())
            groups = {name: Group(**group) for name, group in found["groups"].items()}
            numbers = [float(value) for group in groups.values() for value in asdict(group).values()]
            by, platt = found["by"], None if found["platt"] is None else Platt(**found["platt"])
            if not all(map(math.isfinite, numbers)) or not groups or (by is None and ALL not in groups):
                raise ValueError("a threshold is missing")
            return cls(float(found["fpr"]), found["detector"], found["checkpoint_sha256"], groups, by, platt)
        except OSError as error:
            raise UserError(f"`calibration` is {path}, but there is no such file; make it with calibrate.") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"`calibration` is {path}, which holds no thresholds ({error}); make it anew with lit-detect calibrate."
            ) from error


def calibrate(
    ckpt_path: str,
    human: str,
    fpr: float = 0.01,
    by: str | None = None,
    machine: str | None = None,
    text_column: str = "text",
    output: str = "calibration.json",
    batch_size: int = 16,
) -> None:
    """Fix a detector's threshold at a chosen false-positive rate on human texts of your own.

    Of n human texts, at most ``fpr`` times n count as machine. The true rate may be higher: the interval says by how
    much. Texts that are too short for the detector to decide are left out.

    Args:
        ckpt_path: Checkpoint of the detector, from ``lit-detect fit``.
        human: Texts by humans: a .csv, .tsv, .jsonl, .txt (a text per line), a folder of .txt, or the folder of a split
            that ``lit-detect prepare`` wrote, of which the human texts are taken.
        fpr: Share of human texts that may count as machine, above 0 and below 1; needs 3 / fpr human texts, and as
            many of each group.
        by: Column, key or field such as domain or language that names groups, each with a threshold of its own; null
            has one threshold.
        machine: Texts by machines, given like the human ones, to map scores to probabilities; null makes no map.
        text_column: Column or key of the text.
        output: File to write the thresholds to.
        batch_size: Texts per forward pass.

    Raises:
        UserError: If there are too few human texts, or their scores do not differ.
    """
    from lit_detect.loading import LoadedDetector, score_many

    if not 0 < fpr < 1:
        raise UserError(
            f"`fpr` is {fpr}, but it is a share of human texts; give one above 0 and below 1, such as 0.01."
        )
    texts, groups = read_texts(human, text_column, by, HUMAN, "human")
    check_counts(groups, fpr, by)  # before the detector is loaded
    others = [] if machine is None else read_texts(machine, text_column, None, MACHINE, "machine")[0]
    detector = LoadedDetector.load(ckpt_path)
    kept = detector.long_enough(texts)
    texts, groups = ([value for value, long in zip(values, kept, strict=True) if long] for values in (texts, groups))
    if not all(kept):
        least = max(1, detector.task.min_tokens)
        print(f"{len(kept) - sum(kept):,} texts of fewer than {least} tokens are left out.", flush=True)
        check_counts(groups, fpr, by)
    others = [text for text, long in zip(others, detector.long_enough(others), strict=True) if long]
    scores = score_many(detector, [*texts, *others], batch_size).scores
    ours, theirs = scores[: len(texts)], scores[len(texts) :]
    names = sorted(set(groups))
    found = {}
    for name in names:
        chosen = ours[torch.tensor([group == name for group in groups])]
        found[name] = group_of(chosen, fpr, f"scores of {by} {name!r}" if by else "scores of human texts")
    labels = torch.tensor([HUMAN] * len(ours) + [MACHINE] * len(theirs))
    platt = fit_platt(scores, labels) if machine is not None else None
    if platt is not None:
        check_rising(platt, detector.name, "leave `machine` out for thresholds without probabilities, or train another")
    Calibration(fpr, detector.name, detector.sha256, found, by, platt).save(output)
    print(f"{detector.name}, at most {fpr:.3g} of human texts:")
    for name, group in found.items():
        title = f"{by} {name}: " if by else ""
        print(
            f"  {title}threshold {group.threshold:.6g} flags {group.achieved_fpr:.3%} of {group.n:,} human texts "
            f"(95 % interval {group.low:.3%} to {group.high:.3%})"
        )
    if len(theirs) and by is None:
        print(f"  and {float((theirs >= found[ALL].threshold).double().mean()):.1%} of {len(theirs):,} machine texts")
    print(f"Use it: lit-detect predict --ckpt_path {ckpt_path} --model.init_args.calibration {output}", flush=True)


def group_of(scores: Tensor, fpr: float, name: str = "scores of human texts") -> Group:
    """Return the threshold of a group and what it achieves.

    Raises:
        UserError: If a score is not a finite number, or all are the same.
    """
    check_scores(scores, name)
    threshold = threshold_at_fpr(scores, fpr)
    achieved = false_positive_rate(scores, threshold)
    low, high = rate_interval(round(achieved * len(scores)), len(scores))
    return Group(threshold, achieved, low, high, len(scores))


def check_counts(groups: Sequence[str], fpr: float, by: str | None) -> None:
    """Refuse fewer human texts in a group than the false-positive rate needs.

    With 3 / fpr texts or more, a threshold that flags none of them has a rate below ``fpr`` with 95 % certainty.
    """
    need = math.ceil(3 / fpr - 1e-9)
    for name in sorted(set(groups)) or [ALL]:
        count = groups.count(name)
        if count < need:
            where = f" with {by} {name!r}" if by else ""
            raise UserError(
                f"There are {count:,} human texts{where}, but a false-positive rate of {fpr:g} needs {need:,}; give "
                f"more texts, or an `fpr` of {3 / max(count, 4):.2g} or more."
            )


def read_texts(path: str, text_column: str, by: str | None, label: int, argument: str) -> tuple[list[str], list[str]]:
    """Return texts and their groups.

    Args:
        path: A file or folder that `TextFile` reads, or a text shard set.
        text_column: Column or key of the text.
        by: Column, key or field that names groups; None for one.
        label: Which texts of a text shard set are taken: 0 human, 1 machine.
        argument: Name of the argument, for messages.
    """
    place = resolve_data_path(path)
    if (place / "index.json").is_file():
        found = TextSet(place)
        records = [found.record(int(i)) for i in (found.labels() == label).nonzero()[0]]
        records = [record for record in records if not record.attack or label != HUMAN]
        return [record.text for record in records], [ALL if by is None else condition(record, by) for record in records]
    if place.is_dir() and not any(place.glob("*.txt")):
        raise UserError(
            f"`{argument}` is {path}, a folder with neither .txt files nor an index.json; name a file, or a split such "
            f"as {path.rstrip('/')}/val."
        )
    rows = TextFile(place, text_column, by)
    samples = [rows[number] for number in range(len(rows))]
    return [sample["text"] for sample in samples], [sample.get("group", ALL) for sample in samples]
