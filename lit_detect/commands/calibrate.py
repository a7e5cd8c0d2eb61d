"""The verb ``calibrate``: a threshold at a chosen false-positive rate, on the user's own human text."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lit_core.errors import UserError, check_at_least, checked_first
from lit_core.files.bad_rows import STOP, BadRows, OnError, beside
from lit_core.files.outputs import output_file
from lit_core.screen import quoted, say
from lit_core.statistics.proportion import exact_ends, share_interval
from lit_detect.calibration import ALL, Calibration, Group
from lit_detect.data.user_texts import Texts, open_texts
from lit_detect.functional.calibration import check_rising, fit_platt
from lit_detect.functional.conformal import expected_fpr, threshold_at_fpr
from lit_detect.functional.threshold import check_scores
from lit_detect.records import HUMAN, MACHINE


def _check(fpr: float, batch_size: int) -> None:
    if not 0 < fpr < 1:
        raise UserError(
            f"`fpr` is {fpr}, but it is a share of human texts; give one above 0 and below 1, such as 0.01."
        )
    check_at_least(1, batch_size=batch_size)


@checked_first(_check)
def calibrate(
    ckpt_path: str,
    human: list[str] | str,
    fpr: float = 0.01,
    by: str | None = None,
    machine: list[str] | str | None = None,
    text_column: str = "text",
    on_error: OnError = "stop",
    output: str = "calibration.json",
    batch_size: int = 16,
) -> None:
    """Fix a detector's threshold at a chosen false-positive rate on human texts of your own.

    Of n human texts, at most ``fpr`` times n count as machine. The true rate may be higher: the interval says by how
    much. Texts that are too short for the detector to decide are left out.

    Args:
        ckpt_path: Checkpoint of the detector, from ``lit-detect fit``.
        human: Texts by humans: a .csv, .tsv, .jsonl, .parquet, .txt (a text per line), .docx or .pdf, a folder of .txt,
            .docx and .pdf, a data set as hf:NAME:SPLIT, or a folder that ``lit-detect prepare`` wrote (a split, or the
            test split of a source or root); also a pattern of files, or a list of these. Texts that are labelled
            machine are left out; so are attacked texts.
        fpr: Share of human texts that may count as machine, above 0 and below 1; needs 3 / fpr human texts, and as
            many of each group.
        by: Column, key or field such as domain or language that names groups, each with a threshold of its own; null
            has one threshold.
        machine: Texts by machines, given like the human ones, to map scores to probabilities; null makes no map.
        text_column: Column or key of the text.
        on_error: What a bad row does: stop ends the command, skip lists it with its reason in a file beside the output,
            and the others are read.
        output: File to write the thresholds to.
        batch_size: Texts per forward pass.

    Raises:
        UserError: If there are too few human texts, or their scores do not differ.
    """
    from lit_detect.loading import load_checkpoint, score_many

    target, bad = output_file(output, "`output`"), BadRows(on_error)
    bad_rows = bad.check_output(beside(target))
    _check(fpr, batch_size)
    texts, groups = read_texts(human, "human", HUMAN, text_column, by, bad)
    check_counts(groups, fpr, by)  # before the detector is loaded
    machine_texts = [] if machine is None else read_texts(machine, "machine", MACHINE, text_column, bad=bad)[0]
    detector = load_checkpoint(ckpt_path)
    are_long = detector.long_enough(texts)
    texts, groups = (
        [value for value, long in zip(values, are_long, strict=True) if long] for values in (texts, groups)
    )
    if not all(are_long):
        least = detector.least_tokens
        say(f"{len(are_long) - sum(are_long):,} texts of fewer than {least} tokens are left out.")
        check_counts(groups, fpr, by)
    machine_texts = [
        text for text, long in zip(machine_texts, detector.long_enough(machine_texts), strict=True) if long
    ]
    scores = score_many(detector, [*texts, *machine_texts], batch_size).scores
    human_scores, machine_scores = scores[: len(texts)], scores[len(texts) :]
    names = sorted(set(groups))
    thresholds: dict[str, Group] = {}
    for name in names:
        chosen = human_scores[torch.tensor([group == name for group in groups])]
        thresholds[name] = group_of(chosen, fpr, f"scores of {by} {name!r}" if by else "scores of human texts")
    labels = torch.tensor([HUMAN] * len(human_scores) + [MACHINE] * len(machine_scores))
    platt = fit_platt(scores, labels) if machine is not None else None
    if platt is not None:
        check_rising(platt, detector.name, "leave `machine` out for thresholds without probabilities, or train another")
    assert detector.checkpoint_sha256 is not None
    Calibration(fpr, detector.name, detector.checkpoint_sha256, thresholds, by, platt).save(target)
    bad.write(bad_rows)
    bad.tell(bad_rows)
    say(f"{detector.name}, at most {fpr:.3g} of human texts:")
    for name, group in thresholds.items():
        title = f"{by} {name}: " if by else ""
        say(
            f"  {title}threshold {group.threshold:.6g} flags {group.achieved_fpr:.3%} of {group.n:,} human texts "
            f"(95 % interval {group.low:.3%} to {group.high:.3%})"
        )
    if len(machine_scores) and by is None:
        found = share_interval(machine_scores >= thresholds[ALL].threshold)
        say(f"  and {found.mean:.1%} of {found.n:,} machine texts (95 % interval {found.low:.1%} to {found.high:.1%})")
    say(f"Use it: lit-detect predict --ckpt_path {quoted(ckpt_path)} --model.init_args.calibration {quoted(target)}")


def group_of(scores: Tensor, fpr: float, name: str = "scores of human texts") -> Group:
    """Return the threshold of a group and what it achieves.

    Raises:
        UserError: If a score is not a finite number, or all are the same.
    """
    check_scores(scores, name)
    threshold = threshold_at_fpr(scores, fpr)
    low, high = exact_ends(int((scores >= threshold).sum()), len(scores))
    return Group(threshold, expected_fpr(scores, threshold), low, high, len(scores))


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


def read_texts(
    path: Texts,
    argument: str,
    label: int,
    text_column: str = "text",
    by: str | None = None,
    bad: BadRows = STOP,
) -> tuple[list[str], list[str]]:
    """Return the texts of one class and their groups, and print how many texts are left out.

    Texts with the other label are left out, and human texts that an attack changed. A text without a label counts as
    what the argument says.

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
        raise UserError(f"`{argument}` is {path}, whose texts are all labelled {other}; give {argument} texts.")
    chosen = [index for index in right if label == MACHINE or not records[index].attack]
    unlabelled = sum(records[index].label is None for index in chosen)
    for count, sentence in (
        (len(records) - len(right), f"{other} texts of {path} are left out."),
        (len(right) - len(chosen), f"attacked texts of {path} are left out."),
        (unlabelled, f"texts of {path} have no label and count as {argument}."),
    ):
        if count:
            say(f"{count:,} {sentence}")
    groups = [ALL if by is None else texts.text_and_group(index)[1] for index in chosen]
    return [records[index].text for index in chosen], groups
