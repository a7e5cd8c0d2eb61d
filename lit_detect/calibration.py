"""A detector's thresholds by group of texts, as a file holds them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lit_core.errors import UserError, did_you_mean
from lit_core.files.paths import atomic_write, file_sha256
from lit_detect.functional.calibration import Platt

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
