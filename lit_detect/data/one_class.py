"""Human texts, or machine ones, as a calibration takes them: of one class, each once, in groups of enough."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from lit_core.errors import UserError
from lit_core.files.bad_rows import STOP, BadRows
from lit_core.screen import say
from lit_detect.calibration import ALL
from lit_detect.data.user_texts import Texts, named_texts, open_texts
from lit_detect.functional.conformal import texts_needed
from lit_detect.records import HUMAN, MACHINE


def texts_asked(fpr: float, confidence: float | None = None) -> int:
    """Return how many human texts are asked for.

    With 3 / fpr texts or more, a threshold that none of them reaches has a rate below ``fpr`` with 95 % confidence.

    Args:
        fpr: False-positive rate, above 0 and below 1.
        confidence: As in `texts_needed`, whose number may be larger.
    """
    return max(math.ceil(3 / fpr - 1e-9), texts_needed(fpr, confidence))


def without_repeats(texts: Sequence[str], groups: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the texts without those that repeat another of their group but for blanks, and print how many these are.

    A text that counts several times would promise what only so many different ones can.

    Args:
        texts: Human texts.
        groups: Group of each.
    """
    own: dict[tuple[str, str], str] = {}
    for text, group in zip(texts, groups, strict=True):
        own.setdefault((group, " ".join(text.split())), text)
    if repeats := len(texts) - len(own):
        say(f"{repeats:,} human texts that repeat others are left out.")
    return list(own.values()), [group for group, _ in own]


def groups_with_enough(groups: Sequence[str], fpr: float, confidence: float | None, by: str | None) -> list[str]:
    """Return the groups with enough human texts.

    Args:
        groups: Group of each text.
        fpr: False-positive rate, which asks for a number of texts of each group.
        confidence: Probability with which it holds; None if it holds in expectation.
        by: What names the groups; None for a single one.

    Raises:
        UserError: If all have too few.
    """
    counts, needed = Counter(groups) or Counter({ALL: 0}), texts_asked(fpr, confidence)
    enough = sorted(name for name, count in counts.items() if count >= needed)
    if not enough:
        name, count = counts.most_common(1)[0]
        where = f" with {by} {name!r}" if name else ""
        rates = (thousandth / 1000 for thousandth in range(math.ceil(1000 * fpr), 1000))
        rate = next((rate for rate in rates if texts_asked(rate, confidence) <= count), None)
        raise UserError(
            f"There are {count:,} human texts{where}, but this false-positive rate needs {needed:,}; give more texts"
            + (f", or an `fpr` of {rate:g} or more." if rate else ".")
        )
    return enough


def read_texts(
    path: Texts,
    argument: str,
    label: int,
    text_column: str = "text",
    by: str | None = None,
    bad: BadRows = STOP,
) -> tuple[list[str], list[str]]:
    """Return the texts of one class and their groups, and print how many texts are left out.

    Texts with the other label are left out, human texts that an attack changed, and texts whose group is not known. A
    text without a label counts as what the argument says.

    Args:
        path: What names the texts; see `open_texts`.
        argument: Name of the argument, for messages: human or machine.
        label: The class: 0 human, 1 machine.
        text_column: Column or key of the text.
        by: Column, key or field that names groups; None for one.
        bad: What becomes of bad rows.

    Raises:
        UserError: If all texts have the other label.
    """
    texts = open_texts(path, f"`{argument}`", text_column, by, bad=bad)
    records = dict(texts.numbered_records())
    right = [index for index, record in records.items() if record.label in (label, None)]
    other = "machine" if label == HUMAN else "human"
    if not right:
        raise UserError(
            f"`{argument}` is {named_texts(path)}, whose texts are all labelled {other}; give {argument} texts."
        )
    chosen = [index for index in right if label == MACHINE or not records[index].attack]
    unlabelled = sum(records[index].label is None for index in chosen)
    for count, sentence in (
        (len(records) - len(right), f"{other} texts of {named_texts(path)} are left out."),
        (len(right) - len(chosen), f"attacked texts of {named_texts(path)} are left out."),
        (unlabelled, f"texts of {named_texts(path)} have no label and count as {argument}."),
    ):
        if count:
            say(f"{count:,} {sentence}")
    groups = [ALL if by is None else texts.text_and_group(index)[1] for index in chosen]
    known = [number for number, group in enumerate(groups) if by is None or group.strip()]
    if left := len(groups) - len(known):
        say(f"{left:,} texts of {named_texts(path)} have no {by} and are left out.")
    return [records[chosen[number]].text for number in known], [groups[number] for number in known]
