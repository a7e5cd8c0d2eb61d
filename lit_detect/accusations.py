"""What a batch of judgements means: how many false accusations to expect, which survive, and whether it fits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from lit_core.errors import UserError
from lit_core.statistics.beta import beta_probability
from lit_detect.calibration import Calibration
from lit_detect.functional.conformal import discoveries
from lit_detect.human_scores import Standing

#: A row of predictions: ``score``, ``p_value``, ``decision``, ``tokens``, ``reason``.
Row = Mapping[str, Any]
#: Share of a batch from which texts of lengths that were not measured, or that are called machine, are told.
_MANY_UNMEASURED, _MANY_MACHINES = 0.1, 0.5
#: Share of the lowest scores that is compared, and the chance of as many in a batch from which they are too many.
_LOWEST, _CHANCE = 0.1, 1e-4


def check_fdr(fdr: float | None) -> None:
    """Raise an error if a false discovery rate is not between 0 and 1."""
    if fdr is not None and not 0 < fdr < 1:
        raise UserError(
            f"`fdr` is {fdr}, but it is a share of the texts called machine; give one above 0 and below 1, such as "
            "0.1, or null to control none."
        )


def with_fdr(rows: Sequence[dict[str, Any]], fdr: float | None) -> list[dict[str, Any]]:
    """Return the rows of a batch, where decisions of machine that exceed a false discovery rate become abstentions.

    The expected share of human texts among the texts called machine is then at most ``fdr``, as `discoveries` says.

    Args:
        rows: The rows of the whole batch, with ``p_value`` None or NaN where a text is not judged.
        fdr: False discovery rate, above 0 and below 1; None changes no row.
    """
    if fdr is None:
        return list(rows)
    judged = [number for number, row in enumerate(rows) if _is_judged(row)]
    p = [float(rows[i]["p_value"]) if rows[i]["decision"] == "machine" else math.inf for i in judged]
    found = dict(zip(judged, discoveries(torch.tensor(p, dtype=torch.float64), fdr).tolist(), strict=True))
    why = f"called machine alone, but not at a false discovery rate of {100 * fdr:.3g} % of this batch"
    return [
        {**row, "decision": "abstain", "probability": math.nan, "reason": why, **_unflagged(row)}
        if row["decision"] == "machine" and not found.get(number, False)
        else row
        for number, row in enumerate(rows)
    ]


def _unflagged(row: Row) -> dict[str, Any]:
    """Return the windows of a row, if it has some, without flags: where nothing is decided, none is flagged."""
    windows = row.get("windows")
    return {} if windows is None else {"windows": [{**window, "flagged": False} for window in windows]}


def accusation_lines(
    rows: Sequence[Row], calibration: Calibration, groups: Sequence[str], fdr: float | None = None
) -> list[str]:
    """Return what a reader of a batch must know before accusing anybody, a sentence each.

    Args:
        rows: The rows of the whole batch, as they are written.
        calibration: What judged them.
        groups: Group of each row.
        fdr: False discovery rate that was controlled; None for none.
    """
    judged = [(row, group) for row, group in zip(rows, groups, strict=True) if _is_judged(row)]
    if not judged:
        return [f"None of {len(rows):,} texts is judged; the column `reason` says why."] if rows else []
    called = sorted((pair for pair in judged if pair[0]["decision"] == "machine"), key=lambda pair: pair[0]["p_value"])
    n, how = len(judged), "in expectation"
    rate = calibration.fpr * n
    if calibration.confidence is not None:
        how = f"with {100 * calibration.confidence:.4g} % confidence in the rate"
    lines = [
        f"{len(called):,} of {n:,} judged texts are called machine; if all were by humans like those of the "
        f"calibration, at most {rate:.3g} would be ({how})."
    ]
    told = [("weakest", called[-1])] if called else []
    if called and called[0][0]["p_value"] < called[-1][0]["p_value"]:
        told.append(("strongest", called[0]))
    for name, (row, group) in told:
        standing = calibration.standings(row["score"], row["tokens"], group)[-1]
        lines.append(
            f"The {name}: {_so_high(standing)}; among these {n:,}, {n * standing.p_value:.2g} would be expected if all "
            "were by humans (in expectation)."
        )
    if fdr is not None and called:
        lines.append(f"At most {100 * fdr:.3g} % of the {len(called):,} are by humans, in expectation.")
    return lines + _shifts(rows, groups, judged, calibration, len(called))


def _so_high(standing: Standing) -> str:
    verb = "scores" if standing.above == 1 else "score"
    return f"{standing.above or 'none':} of {standing.n:,} human texts of its length {verb} as high"


def _shifts(
    rows: Sequence[Row],
    groups: Sequence[str],
    judged: Sequence[tuple[Row, str]],
    calibration: Calibration,
    called: int,
) -> list[str]:
    """Return warnings that texts are unlike those of the calibration, for which no rate is promised."""
    lines = []
    unmeasured = sum(
        calibration.judge(0.0, row["tokens"], group).p_value is None for row, group in zip(rows, groups, strict=True)
    )
    if unmeasured > _MANY_UNMEASURED * len(rows):
        lines.append(
            f"Warning: {unmeasured:,} of {len(rows):,} texts have a length or group that the calibration did not "
            "measure; calibrate with human texts like them."
        )
    n = len(judged)
    nearest = [calibration.standings(row["score"], row["tokens"], group)[0] for row, group in judged]
    low = sum(one.above >= (1 - _LOWEST) * one.n for one in nearest)  # among the human texts of each group
    expected = _LOWEST + 2 * math.sqrt(_LOWEST * (1 - _LOWEST) / min(one.n for one in nearest))
    if low > expected * n and beta_probability(expected, low, n - low + 1) < _CHANCE:
        lines.append(
            f"Warning: {100 * low / n:.0f} % of the texts score as low as the lowest 10 % of the human texts, so they "
            "are of another kind, for which the calibration promises nothing; calibrate with human texts like them."
        )
    if called > _MANY_MACHINES * n:
        lines.append(
            "Warning: more than half are called machine: either they are, or the texts are of another kind than those "
            "of the calibration, for which it promises nothing; judge human texts of this kind to know."
        )
    return lines


def _is_judged(row: Row) -> bool:
    return row["p_value"] is not None and not math.isnan(row["p_value"])
