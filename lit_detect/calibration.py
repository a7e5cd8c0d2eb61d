"""`Calibration`: a detector's thresholds by group of texts, and the file that stores them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypedDict

from lit_core.errors import UserError, did_you_mean
from lit_core.files.formats import read_stamped, stamp
from lit_core.files.paths import atomic_write, file_sha256
from lit_core.record import new_record, note_input
from lit_detect.functional.calibration import Platt

#: Name of the file's format.
FORMAT = "litshift-calibration"
#: Name of the only group if no column names groups.
ALL = ""
#: The rule by which the threshold follows from the scores, for readers of the file.
RULE = (
    "machine is a score >= threshold; the threshold is the smallest float64 at which the share of human scores >= it "
    "is at most fpr"
)


@dataclass(frozen=True)
class Group:
    """The threshold of a group of texts.

    Args:
        threshold: A score of this or more means machine.
        achieved_fpr: Share of the group's human texts that the threshold decides as machine.
        low: Lower end of the 95 % Clopper-Pearson interval of that rate.
        high: Upper end of that interval.
        n: Number of the group's human texts.
    """

    threshold: float
    achieved_fpr: float
    low: float
    high: float
    n: int


class _PlattKeys(TypedDict):
    slope: float
    intercept: float


class _Stored(TypedDict):
    fpr: float
    by: str | None
    detector: str
    checkpoint_sha256: str
    groups: dict[str, Group]
    platt: _PlattKeys | None


@dataclass(frozen=True)
class Calibration:
    """Thresholds of a detector by group of texts.

    Args:
        fpr: Largest false-positive rate that was allowed.
        detector: Name of the detector.
        checkpoint_sha256: Hash of its checkpoint.
        groups: Thresholds by group. If no column names groups, there is one, named by the empty string.
        by: Column that names the groups; None for a single group.
        platt: Map from scores to probabilities; None if no machine texts were given.
    """

    fpr: float
    detector: str
    checkpoint_sha256: str
    groups: Mapping[str, Group]
    by: str | None = None
    platt: Platt | None = None

    def decide(self, score: float, group: str = ALL) -> bool:
        """Return whether a score means machine.

        Args:
            score: The score.
            group: Group of the text; ignored if the calibration has a single group.

        Raises:
            UserError: If there is no threshold for the group.
        """
        if self.by is None:
            return score >= self.groups[ALL].threshold
        self.check_groups([group])
        return score >= self.groups[group].threshold

    def judge(self, score: float, tokens: int, group: str = ALL) -> tuple[float | None, bool | None, str]:
        """Return the p-value of a score, whether it means machine, and why neither can be told.

        Args:
            score: The score of a whole text.
            tokens: Number of its tokens.
            group: Group of the text; ignored if the calibration has a single group.

        Raises:
            UserError: If there is no threshold for the group.
        """
        return None, self.decide(score, group), ""

    def check_groups(self, groups: Iterable[str]) -> None:
        """Raise an error if the calibration is by group and has no threshold for one of these groups."""
        for group in groups if self.by is not None else ():
            if group not in self.groups:
                raise UserError(
                    f"{self.by} is {group!r}, but there are thresholds for {', '.join(self.groups)} only; name the "
                    f"column by `data.group_column`, calibrate with human texts of that {self.by}, or leave its texts "
                    f"out.{did_you_mean(group, self.groups)}"
                )

    def check(self, detector: str) -> None:
        """Raise an error if the thresholds are of another detector."""
        if detector != self.detector:
            raise UserError(
                f"`calibration` has thresholds of {self.detector}, but the detector is {detector}; calibrate this one."
            )

    def check_checkpoint(self, path: str | Path) -> None:
        """Raise an error if the thresholds are of another checkpoint, whose scores differ after any training."""
        if file_sha256(Path(path)) != self.checkpoint_sha256:
            raise UserError(
                f"`calibration` is of another checkpoint of {self.detector} than {path}; calibrate this one."
            )

    @property
    def threshold(self) -> float:
        """The threshold for all texts.

        Raises:
            UserError: If each group has its own threshold.
        """
        if self.by is not None:
            raise UserError(
                f"`calibration` has a threshold for each {self.by}, by which predict decides but no test does; leave "
                "it out, or calibrate without `by`."
            )
        return self.groups[ALL].threshold

    def save(self, path: str | Path) -> None:
        """Write the calibration as a JSON file, atomically."""
        about = {**stamp(FORMAT), "fpr": self.fpr, "by": self.by, "rule": RULE}
        about |= {"detector": self.detector, "checkpoint_sha256": self.checkpoint_sha256}
        groups = {name: asdict(group) for name, group in self.groups.items()}
        platt = None if self.platt is None else self.platt._asdict()
        content = {**about, "groups": groups, "platt": platt, "record": new_record()}
        atomic_write(Path(path), json.dumps(content, indent=2) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read a calibration.

        Raises:
            UserError: If there is no such file, or it does not hold a calibration.
        """
        remedy = "give `calibration` a file of thresholds, as lit-detect calibrate writes it"
        content = read_stamped(path, FORMAT, _Stored, remedy)
        note_input(path)
        groups, by, platt = content["groups"], content["by"], content["platt"]
        if not groups or (by is None and ALL not in groups):
            raise UserError(f"{path} holds no threshold for all texts; {remedy}.")
        scale = None if platt is None else Platt(platt["slope"], platt["intercept"])
        return cls(content["fpr"], content["detector"], content["checkpoint_sha256"], groups, by, scale)
