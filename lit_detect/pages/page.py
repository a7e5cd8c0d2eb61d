"""The page of one text: what was decided and why, where in the text, and what this cannot tell."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import groupby, zip_longest
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from lit_core.pages.rendering import render, text_as_found
from lit_detect.calibration import ALL
from lit_detect.judging import Judge, Judgement, Through, Window
from lit_detect.pages.expected import Word, words_of
from lit_detect.scoring.causal import remembering

if TYPE_CHECKING:
    from markupsafe import Markup

#: Width and height of the strip of windows, and of the room above and below the lines in it.
_WIDTH, _HEIGHT, _ROOM = 1000, 100, 12
#: Windows that are scored at once, few, so that what goes through them is asked often.
BATCH_SIZE = 2


def page_of(judge: Judge, text: str, name: str, group: str = ALL, back: str = "", through: Through = iter) -> str:
    """Return the page of a text, which loads nothing and has no scripts; the text is escaped.

    Args:
        judge: What judges it.
        text: The text as it was found.
        name: Name of the text.
        group: Group of the text, where the calibration is by group.
        back: Address of the form from which the text came; empty for a page without.
        through: Goes through the windows, twice.
    """
    with remembering({}):  # so that the language model of many detectors reads the text once
        (found,) = judge.judge([text], [group], BATCH_SIZE, through)
        words = words_of(judge.detector, text, found.windows, through)
    flagged = [window for window in found.windows if window.is_flagged]
    bins = [sum(word.bin == number for word in words) for number in range(4)]
    return render(
        "lit_detect.pages",
        "page.html",
        title=name,
        found=found,
        facts=_facts(judge, found, len(words), group),
        strip=_strip(found.windows, len(text)),
        shares=[f"{100 * count / sum(bins):.0f} %" for count in bins] if any(bins) else [],
        flagged=len(flagged),
        lines=list(_lines(text, words, flagged)),
        calibration=judge.calibration,
        back=back,
    )


def _facts(judge: Judge, found: Judgement, words: int, group: str) -> list[tuple[str, str]]:
    """Return what is known about a text, as pairs of a name and words."""
    facts = [("Length", f"{words:,} words, {found.tokens:,} tokens")]
    if math.isfinite(found.score):
        largest = f"; the largest of {len(found.windows):,} windows" if len(found.windows) > 1 else ""
        facts.append(("Score", f"{_signed(found.score)} (higher is more like a machine{largest})"))
    if found.probability is not None:
        mixed = "if machines wrote as large a share of such texts as where this was fitted"
        facts.append(("Probability", f"{_percent(found.probability)} machine, {mixed}"))
    if found.p_value is not None and judge.calibration is not None:
        above, n = judge.calibration.standings(found.score, found.tokens, group)[-1]
        among = f"{above:,} of the {n:,} texts by people that were measured at its length score as high"
        kind = ", in that kind of text where most do" if judge.calibration.strictest else ""
        facts.append(("p-value", f"{found.p_value:.2g}: {among}{kind}"))
    return [*facts, ("Detector", judge.name)]


def _signed(score: float) -> str:
    return f"{score:.4g}".replace("-", "−")


def _percent(share: float) -> str:
    return "below 1 %" if share < 0.01 else "above 99 %" if share > 0.99 else f"{100 * share:.0f} %"


def _strip(windows: Sequence[Window], length: int) -> dict[str, Any]:
    """Return the lines of a chart of windows over the text; nothing where there is a single window."""
    shown = [window for window in windows if math.isfinite(window.score)]
    if len(shown) < 2:
        return {}
    low, high = min(window.score for window in shown), max(window.score for window in shown)

    def y(score: float) -> float:
        share = (score - low) / (high - low) if high > low else 0.5
        return round(_HEIGHT - _ROOM - share * (_HEIGHT - 2 * _ROOM), 1)

    lines = [
        {
            "x": (round(_WIDTH * one.start / length, 1), round(_WIDTH * one.end / length, 1)),
            "y": y(one.score),
            "is_flagged": one.is_flagged,
            "title": f"characters {one.start:,} to {one.end:,}: {_signed(one.score)}{', flagged' * one.is_flagged}",
        }
        for one in shown
    ]
    return {"lines": lines, "low": _signed(low), "high": _signed(high), "width": _WIDTH, "height": _HEIGHT}


def _lines(
    text: str, words: Sequence[Word], flagged: Sequence[Window]
) -> Iterator[tuple[bool, list[tuple[bool, Markup]]]]:
    """Yield each line with words: whether a blank one is before it, and its parts, flagged or not."""
    from markupsafe import Markup

    borders, starts = _borders(flagged), [word.start for word in words]
    end, is_after_gap = 0, False
    for line in text.splitlines(keepends=True):
        start, end = end, end + len(line)
        inside = words[bisect_left(starts, start) : bisect_left(starts, end)]
        if inside:
            parts = groupby(_pieces(text, inside, borders), key=itemgetter(0))
            yield is_after_gap, [(kind, Markup("").join(piece for _, piece in part)) for kind, part in parts]
        is_after_gap = not inside


def _pieces(text: str, words: Sequence[Word], borders: Sequence[int]) -> Iterator[tuple[bool, Markup]]:
    """Yield the words of a line and the blanks between them, flagged or not."""
    from markupsafe import Markup

    for word, after in zip_longest(words, words[1:]):
        shown = text_as_found(text[word.start : word.end])
        if word.bin is not None:
            shown = Markup('<i class="w{}">{}</i>').format(word.bin, shown)
        yield bisect_right(borders, word.start) % 2 == 1, shown
        if after is not None and after.start > word.end:
            yield bisect_right(borders, word.end) % 2 == 1, text_as_found(text[word.end : after.start])


def _borders(flagged: Sequence[Window]) -> list[int]:
    """Return where what is flagged starts and ends by turns, from windows in the order of the text."""
    borders: list[int] = []
    for window in flagged:
        if borders and window.start <= borders[-1]:
            borders[-1] = max(borders[-1], window.end)
        else:
            borders += [window.start, window.end]
    return borders
