"""Golden texts: shipped ones whose scores tell whether a detector still scores as it did when it was calibrated."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lit_core.errors import UserError
from lit_detect.calibration import Calibration
from lit_detect.formats.embedded import EmbeddedPairs
from lit_detect.judging import Judge

#: Number of golden texts.
COUNT = 32
#: Change of the false-positive rate, as a share of it, from which a movement of the scores matters.
_MATTERS = 0.1


def golden_texts() -> list[str]:
    """Return the texts, by humans and machines, of both domains."""
    texts = [record.text for record in EmbeddedPairs().records() if record.split == "test"]
    return [texts[number * len(texts) // COUNT] for number in range(COUNT)]


def check_scores_stand(judge: Judge) -> None:
    """Refuse a calibration of a detector whose scores have moved since, as `check_golden` tells.

    Args:
        judge: The detector as it is now, and its calibration, if there is one.

    Raises:
        UserError: If the false-positive rate may have changed by more than a tenth.
    """
    if judge.calibration is not None and judge.calibration.golden:
        check_golden(judge.calibration, judge.scores(golden_texts()).tolist())


def check_golden(calibration: Calibration, scores: Sequence[float]) -> None:
    """Refuse a calibration of a detector whose scores have moved so far that its false-positive rate has, too.

    Each score may have moved by as much as the golden text that moved most. The human texts that would then pass a
    threshold, beyond those that passed it, must be few. Rounding moves none, also where several have the
    highest score below it.

    Args:
        calibration: The calibration, with the scores of `golden_texts` at its time.
        scores: Their scores now.

    Raises:
        UserError: If the rate may have changed by more than a tenth at a length of a group.
    """
    if len(scores) != len(calibration.golden):
        raise UserError(
            f"`calibration` has scores of {len(calibration.golden):,} golden texts, but there are {len(scores):,}; "
            "calibrate again."
        )
    moved = [
        abs(now - then) if math.isfinite(now) else math.inf
        for now, then in zip(scores, calibration.golden, strict=True)
    ]
    most = max(moved)
    index = moved.index(most)
    for group in calibration.groups.values():
        for length in (*group.lengths, group.whole):
            threshold, n = calibration.threshold(length), len(length.scores)
            highest = math.nextafter(threshold, -math.inf)  # human score below it
            added = length.standing(threshold - most).above - length.standing(highest).above
            if threshold < math.inf and added / (n + 1) > _MATTERS * calibration.fpr:
                raise UserError(
                    f"The detector no longer scores as it did for `calibration`: golden text {index} had "
                    f"{calibration.golden[index]:.6g} and has {scores[index]:.6g}, which may call "
                    f"{added:,} more of {n:,} human texts machine; another revision of its model, number format, "
                    "device or tokenizer does that; take the former one, or calibrate again."
                )
