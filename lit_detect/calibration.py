"""`Calibration`: the scores of human texts by which a detector's scores are judged, and the file that stores them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple, TypedDict

import torch

from lit_core.errors import UserError, did_you_mean
from lit_core.files.formats import read_stamped, stamp
from lit_core.files.paths import atomic_write, file_sha256
from lit_core.record import new_record, note_input
from lit_core.screen import rank_zero_warn
from lit_detect.functional.calibration import Platt
from lit_detect.functional.conformal import allowed_above, check_rates, threshold_at_fpr
from lit_detect.human_scores import Group, Length, Standing

#: Name of the file's format.
FORMAT = "litshift-calibration"
#: The calibration of the default detector.
DEFAULT_CALIBRATION = Path(__file__).parent / "embedded" / "default_calibration.json"
#: Name of the only group if no column names groups.
ALL = ""
#: The rule by which texts are judged, for readers of the file.
RULE = (
    "the p-value of a text is (1 + number of human scores >= its own) / (1 + number of human scores), the larger one "
    "of those at the two lengths between which its own lies; machine is a p-value of at most fpr, so that fresh human "
    "texts are called machine at that rate in expectation, or, with a confidence, a number of human scores >= its own "
    "at which their true rate is at most fpr with this probability"
)
_allowed = cache(allowed_above)
_p_value = attrgetter("p_value")


class Verdict(NamedTuple):
    """What a calibration says of a text.

    Args:
        p_value: Largest probability, in expectation, with which a human text like those of the calibration scores as
            high; None where nothing was measured.
        is_machine: Whether the text is called machine; None where nothing was measured.
        reason: Why nothing is said; empty where something is.
    """

    p_value: float | None
    is_machine: bool | None
    reason: str


class _PlattKeys(TypedDict):
    slope: float
    intercept: float


class _Stored(TypedDict):
    fpr: float
    confidence: float | None
    by: str | None
    detector: str
    checkpoint_sha256: str | None
    window_tokens: int | None
    groups: dict[str, Group]
    platt: _PlattKeys | None
    golden: tuple[float, ...]
    strictest: bool
    in_english: bool
    most_repeated: float | None


@dataclass(frozen=True)
class Calibration:
    """The scores of human texts under a detector, by group and length, and the rule by which others are judged.

    Args:
        fpr: Rate at which human texts may be called machine.
        detector: Name of the detector.
        checkpoint_sha256: Hash of its checkpoint; None without one.
        groups: Scores by group. If no column names groups, there is one, named by the empty string.
        by: Column that names the groups; None for a single group.
        platt: Map from scores to probabilities; None if no machine texts were given.
        confidence: Probability with which the rate holds for these human texts; None if it holds in expectation.
        window_tokens: Most tokens of a window; None if it is what the detector reads at once.
        golden: Scores of the texts of `lit_detect.golden`; empty to compare none.
        strictest: Whether a text is compared with every group, whatever its own, and is a machine's only if each says
            so. The rate then holds for human texts of any mixture of the groups.
        in_english: Whether hardly a human text of any group is not in English, so that no other text is judged by them.
        most_repeated: Share of repeated triples of words, of a text or a window, above which no text is judged, since
            hardly a human text of any group had more; None for no limit.
    """

    fpr: float
    detector: str
    checkpoint_sha256: str | None
    groups: Mapping[str, Group]
    by: str | None = None
    platt: Platt | None = None
    confidence: float | None = None
    window_tokens: int | None = None
    golden: tuple[float, ...] = ()
    strictest: bool = False
    in_english: bool = False
    most_repeated: float | None = None

    def kind(self, is_english: bool, repeated: float) -> str:
        """Return why a text is of another kind than all human texts, so that nothing is known of it; empty if not.

        Args:
            is_english: Whether the text is in English.
            repeated: The largest share of repeated triples of words of the text and its windows.
        """
        if self.in_english and not is_english:
            return (
                "not English prose, as the human texts of the calibration are: fewer than a fifth of its words are "
                "among the commonest of English"
            )
        if self.most_repeated is not None and repeated > self.most_repeated:
            return (
                f"{repeated:.0%} of the word triples of the text or a window are repeated, and in the human texts of "
                f"the calibration at most {self.most_repeated:.0%}"
            )
        return ""

    def judge(self, score: float, tokens: int, group: str = ALL) -> Verdict:
        """Return the p-value of a score, whether it means machine, and why neither can be told.

        A text whose length lies between two that were measured must pass the rule of both. The strictest rule says
        nothing where the groups disagree: where the text would pass among all human texts together, but not in a group.

        Args:
            score: The score of a whole text, a finite number.
            tokens: Number of its tokens.
            group: Group of the text; ignored if the calibration has a single group.
        """
        near = self._near(tokens, group)
        if isinstance(near, str):
            return Verdict(None, None, near)
        worst = {name: max((length.standing(score) for length in own), key=_p_value) for name, own in near.items()}
        passes = {
            name: all(
                above <= _allowed(n, self.fpr, self.confidence)
                for above, n in (length.standing(score) for length in own)
            )
            for name, own in near.items()
        }
        p_value = max(map(_p_value, worst.values()))
        if all(passes.values()):
            return Verdict(p_value, True, "")
        pooled = Standing(sum(one.above for one in worst.values()), sum(one.n for one in worst.values()))
        if len(near) > 1 and pooled.above <= _allowed(pooled.n, self.fpr, self.confidence):
            name = max((name for name in near if not passes[name]), key=lambda name: _p_value(worst[name]))
            above, n = worst[name]
            reason = f"few human texts score as high, but {above:,} of {n:,} with {self.by} {name!r} do"
            return Verdict(p_value, None, reason)
        return Verdict(p_value, False, "")

    def standings(self, score: float, tokens: int, group: str = ALL) -> list[Standing]:
        """Return the places of a text among the human texts of each length and group with which it is compared.

        They are sorted, so that the last one has the largest p-value, by which the text is judged.

        Args:
            score: The score of a whole text, a finite number.
            tokens: Number of its tokens, which was measured.
            group: Group of the text; see `judge`.
        """
        near = self._near(tokens, group)
        assert not isinstance(near, str), near
        return sorted((length.standing(score) for own in near.values() for length in own), key=_p_value)

    def _near(self, tokens: int, group: str) -> dict[str, tuple[Length, ...]] | str:
        """Return the human scores with which a text is compared, by group, or why there are none."""
        names = list(self.groups) if self.strictest else [ALL if self.by is None else group]
        if names[0] not in self.groups:
            return f"no human texts with {self.by} {group!r} were measured"
        near = {name: self.groups[name].near(tokens) for name in names}
        if any(near.values()):
            # a group whose texts are all shorter counts: its longer ones would score as high or higher
            started = [name for name in names if self.groups[name].lengths[0].tokens <= tokens]
            return {name: near[name] or (self.groups[name].whole,) for name in started}
        shortest = min(self.groups[name].lengths[0].tokens for name in names)
        longest = max(self.groups[name].whole.tokens for name in names)
        limit = f"fewer than the {shortest:,}" if tokens < shortest else f"more than the {longest:,}"
        return f"{tokens:,} tokens, {limit} that human texts were measured with"

    def threshold(self, length: Length) -> float:
        """Return the smallest score that is called machine at a length; infinity if it has too few human texts."""
        return threshold_at_fpr(torch.tensor(length.scores, dtype=torch.float64), self.fpr, self.confidence)

    @property
    def promise(self) -> str:
        """What the false-positive rate promises, as a part of a sentence."""
        how = "in expectation" if self.confidence is None else f"with {100 * self.confidence:.4g} % confidence"
        return f"at most {100 * self.fpr:.3g} % of human texts like these, {how}"

    def check_groups(self, groups: Iterable[str]) -> None:
        """Raise an error if the calibration is by group and has human texts of none of these; warn if not of all."""
        missing = sorted({*groups} - self.groups.keys()) if self.by is not None and not self.strictest else []
        if not missing:
            return
        remedy = (
            f"name the column by `data.group_column`, calibrate with human texts of that {self.by}, or leave its texts "
            f"out.{did_you_mean(missing[0], self.groups)}"
        )
        if self.groups.keys().isdisjoint(groups):
            raise UserError(
                f"{self.by} is {missing[0]!r}, but there are human texts of {', '.join(self.groups)} only; {remedy}"
            )
        rank_zero_warn(f"No human texts were measured with {self.by} {missing[0]!r} (of {len(missing)} such); {remedy}")

    def check(self, detector: str, window_tokens: int | None = None) -> None:
        """Raise an error if the scores are of another detector, or of other windows."""
        if detector != self.detector:
            raise UserError(
                f"`calibration` has scores of {self.detector}, but the detector is {detector}; calibrate this one."
            )
        if window_tokens != self.window_tokens:
            own, other = (
                "all that the detector reads" if n is None else f"{n:,}" for n in (self.window_tokens, window_tokens)
            )
            raise UserError(f"`calibration` is of windows of {own} tokens, but these have {other}; calibrate again.")

    def check_checkpoint(self, path: str | Path | None) -> None:
        """Raise an error if the scores are of another checkpoint, or of one where there is none or the reverse."""
        if self.checkpoint_sha256 != (None if path is None else file_sha256(Path(path))):
            other = "no checkpoint" if path is None else path
            own = f"no checkpoint of {self.detector}" if self.checkpoint_sha256 is None else "another checkpoint"
            raise UserError(f"`calibration` is of {own}, but this is {other}; calibrate this one.")

    def save(self, path: str | Path) -> None:
        """Write the calibration as a JSON file, atomically."""
        own = {**asdict(self), "platt": None if self.platt is None else self.platt._asdict()}
        about = {**stamp(FORMAT), "rule": RULE}
        atomic_write(Path(path), json.dumps({**about, **own, "record": new_record()}) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Read a calibration.

        Args:
            path: The file; ``default`` is that of the default detector.

        Raises:
            UserError: If there is no such file, or it does not hold a calibration.
        """
        remedy = (
            "calibrate again for `calibration`; those of former releases let more human texts pass than they promised"
        )
        path = DEFAULT_CALIBRATION if str(path) == "default" else path
        content = read_stamped(path, FORMAT, _Stored, remedy)
        note_input(path)
        check_rates(content["fpr"], content["confidence"])
        groups, by, platt, most = content["groups"], content["by"], content["platt"], content["most_repeated"]
        if most is not None and not 0 <= most <= 1:
            raise UserError(f"{path}, most_repeated is {most}, but it is a share, 0 to 1; {remedy}.")
        if not groups or (by is None and ALL not in groups):
            raise UserError(f"{path} holds no scores of all human texts; {remedy}.")
        for name, group in groups.items():
            lengths = (*group.lengths, group.whole)
            tokens = [length.tokens for length in lengths]
            rising = all(length.scores == tuple(sorted(length.scores)) for length in lengths)
            if not group.lengths or tokens != sorted(tokens) or tokens[0] < 1 or not rising:
                raise UserError(
                    f"{path}, groups.{name} does not rise in length, from 1 token on, and in score; {remedy}."
                )
            if not all(length.scores and all(map(math.isfinite, length.scores)) for length in lengths):
                raise UserError(f"{path}, groups.{name} has a length without scores or an infinite score; {remedy}.")
        if platt is not None and not platt["slope"] > 0:
            raise UserError(f"{path}, platt.slope is {platt['slope']}, so that machines would seem human; {remedy}.")
        own = {name: content[name] for name in _Stored.__annotations__}
        return cls(**{**own, "platt": None if platt is None else Platt(platt["slope"], platt["intercept"])})
