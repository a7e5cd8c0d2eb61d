"""What a criterion finds: a comparison with an interval over seeds, and the outcome for the claim."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from lit_core.statistics.interval import Interval
from lit_core.statistics.means import t_interval

Outcome = Literal["reproduced", "not reproduced", "undecided", "not testable here"]


@dataclass(frozen=True)
class Finding:
    """The result of a criterion.

    Args:
        outcome: The consequence for the claim.
        what: What was compared.
        interval: Mean over seeds and its 95 % interval; None where nothing was measured.
        seeds: The seeds that were used.
        note: Remarks for the reader.
        margin: Distance of the interval's end from the limit, positive on the claimed side and negative on the other.
    """

    outcome: Outcome
    what: str
    interval: Interval | None = None
    seeds: tuple[int, ...] = ()
    note: str = ""
    margin: float = math.nan


#: Outcomes, from the one that speaks most against a claim.
_ORDER: tuple[Outcome, ...] = ("not reproduced", "not testable here", "undecided", "reproduced")


def verdict(findings: Sequence[Finding]) -> Outcome:
    """Return the outcome of several findings together: the one that speaks most against the claim."""
    return min((finding.outcome for finding in findings), key=_ORDER.index, default="not testable here")


def decided(
    what: str, by_seed: Mapping[int, float], above: float | None = None, below: float | None = None, note: str = ""
) -> Finding:
    """Say where the interval lies: wholly on the claimed side of the limit, wholly on the other, or on both."""
    interval = t_interval(list(by_seed.values()))
    low, high, limit = interval.low, interval.high, above
    if below is not None:
        low, high, limit = -interval.high, -interval.low, -below
    assert limit is not None  # one of the two is given
    outcome: Outcome = "reproduced" if low > limit else "not reproduced" if high < limit else "undecided"
    return Finding(outcome, what, interval, tuple(sorted(by_seed)), note, low - limit)


def hardest(findings: Sequence[Finding]) -> Finding:
    """Return the finding that speaks most against their claim, by its outcome, then by its interval."""

    def strength(finding: Finding) -> tuple[int, float]:
        return _ORDER.index(finding.outcome), math.inf if finding.interval is None else finding.margin

    finding = min(findings, key=strength)
    if len(findings) == 1:
        return finding
    note = f"the hardest of {len(findings)}"
    return replace(finding, note=f"{note}; {finding.note}" if finding.note else note)


def nothing(what: str, why: str, outcome: Outcome = "not testable here") -> Finding:
    """Return the finding of a comparison for which there are no values, with the reason as its note."""
    return Finding(outcome, what, note=why)
