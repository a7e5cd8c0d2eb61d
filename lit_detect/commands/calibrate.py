"""The verb ``calibrate``: what a detector makes of the user's own human texts, by which it judges others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

import torch

from lit_core.errors import UserError, check_at_least, checked_first
from lit_core.files.bad_rows import BadRows, OnError, beside
from lit_core.files.outputs import output_file
from lit_core.files.tables import text_table
from lit_core.screen import quoted, say
from lit_core.statistics.beta import beta_quantile
from lit_core.statistics.proportion import share_interval
from lit_detect.calibration import Calibration
from lit_detect.data.one_class import groups_with_enough, read_texts, texts_asked, without_repeats
from lit_detect.functional.calibration import Platt, check_rising, fit_platt
from lit_detect.functional.conformal import allowed_above, check_rates
from lit_detect.language.english import mostly_english
from lit_detect.language.repetition import most_repeated
from lit_detect.prefixes import Beginnings
from lit_detect.records import HUMAN, MACHINE


def _check(fpr: float, confidence: float | None, batch_size: int, strictest: bool, by: str | None) -> None:
    check_rates(fpr, confidence)
    if strictest and by is None:
        raise UserError("`strictest` compares texts with every group, but no `by` names groups; name their column.")
    check_at_least(1, batch_size=batch_size)


@checked_first(_check)
def calibrate(
    human: list[str] | str,
    ckpt_path: str | None = None,
    detector: str | None = None,
    fpr: float = 0.01,
    confidence: float | None = None,
    by: str | None = None,
    strictest: bool = False,
    machine: list[str] | str | None = None,
    text_column: str = "text",
    on_error: OnError = "stop",
    output: str = "calibration.json",
    batch_size: int = 16,
) -> None:
    """Measure what a detector makes of human texts of your own, so that it calls few like them machine.

    Each text is scored whole and cut to lengths, so that a text is compared with human texts of its length. Fresh human
    texts like these are called machine at a rate of at most ``fpr``: in expectation, or with a confidence. Texts that
    are too short for the detector to decide are left out.

    Args:
        human: Texts by humans: a .csv, .tsv, .jsonl, .parquet, .txt (a text per line), .docx or .pdf, a folder of .txt,
            .docx and .pdf, a data set as hf:NAME:SPLIT, or a folder that ``lit-detect prepare`` wrote (a split, or the
            test split of a source or root); also a pattern of files, or a list of these. Texts that are labelled
            machine are left out; so are attacked texts.
        ckpt_path: Checkpoint of the detector, from ``lit-detect fit``; null takes `detector`.
        detector: Detector without a checkpoint: default, the name of a shipped one such as log_likelihood, or the name
            or folder of a Hugging Face classifier; null takes `ckpt_path`.
        fpr: Share of human texts that may count as machine, above 0 and below 1; needs 3 / fpr human texts, and as
            many of each group and length.
        confidence: Probability with which the true rate is at most ``fpr`` for the human texts at hand, such as 0.95;
            null for a rate that holds in expectation.
        by: Column, key or field such as domain, language or writer that names groups, each compared with its own human
            texts; null compares with all. Groups of too few texts are left out.
        strictest: Whether texts are compared with every group of `by`, whatever their own, and are called machine only
            if each says so: the rate then holds for any mixture of these groups.
        machine: Texts by machines, given like the human ones, to map scores to probabilities; null makes no map.
        text_column: Column or key of the text.
        on_error: What a bad row does: stop ends the command, skip lists it with its reason in a file beside the output,
            and the others are read.
        output: File to write the calibration to.
        batch_size: Texts per forward pass.

    Raises:
        UserError: If there are too few human texts, or their scores do not differ.
    """
    from lit_detect.default import DEFAULT
    from lit_detect.golden import golden_texts
    from lit_detect.loading import load, load_checkpoint, score_many

    target, bad = output_file(output, "`output`"), BadRows(on_error)
    bad_rows = bad.check_output(beside(target))
    _check(fpr, confidence, batch_size, strictest, by)
    texts, groups = read_texts(human, "human", HUMAN, text_column, by, bad)
    if (ckpt_path is None) == (detector is None):
        raise UserError("Give one of `ckpt_path`, a checkpoint of lit-detect fit, and `detector`, a name.")
    texts, groups = without_repeats(texts, groups)
    needed = texts_asked(fpr, confidence)
    groups_with_enough(groups, fpr, confidence, by)  # before the detector is loaded
    machine_texts = [] if machine is None else read_texts(machine, "machine", MACHINE, text_column, bad=bad)[0]
    judge = load(str(detector)) if ckpt_path is None else load_checkpoint(ckpt_path)
    are_long = judge.long_enough(texts)
    texts, groups = ([one for one, long in zip(values, are_long, strict=True) if long] for values in (texts, groups))
    if not all(are_long):
        say(f"{are_long.count(False):,} texts of fewer than {judge.least_tokens} tokens are left out.")
    enough = groups_with_enough(groups, fpr, confidence, by)
    if few := sorted({*groups} - {*enough}):
        names = ", ".join(few[:5]) + (", …" if len(few) > 5 else "")
        say(f"Left out, with fewer than {needed:,} human texts: {by} {names} ({len(few):,} in all).")
    members = {name: [text for text, own in zip(texts, groups, strict=True) if own == name] for name in enough}
    measured = {
        name: Beginnings.of(own, judge.least_tokens, needed, judge.count_tokens) for name, own in members.items()
    }
    machine_texts = [text for text, long in zip(machine_texts, judge.long_enough(machine_texts), strict=True) if long]
    golden, both = golden_texts(), [texts, machine_texts] if machine is not None else []
    asked = list(chain(golden, *measured.values(), *both))
    score = dict(zip(asked, score_many(judge, asked, batch_size).scores.tolist(), strict=True))
    known = judge.platt if detector == DEFAULT else None  # from texts of domains that were left out
    calibration = Calibration(
        fpr=fpr,
        detector=judge.name,
        checkpoint_sha256=judge.checkpoint_sha256,
        groups={
            name: own.group(score, f"scores of {by} {name!r}" if by else "scores of human texts")
            for name, own in measured.items()
        },
        by=by,
        platt=platt_of(judge.name, *([score[text] for text in some] for some in both)) if both else known,
        confidence=confidence,
        window_tokens=judge.window_tokens,
        golden=tuple(score[text] for text in golden),
        strictest=strictest,
        in_english=all(mostly_english(judge.are_english(own)) for own in members.values()),
        most_repeated=max(most_repeated(judge.repeated_shares(own)) for own in members.values()),
    )
    bad.write(bad_rows)
    calibration.save(target)
    bad.tell(bad_rows)
    say(f"{judge.name} calls machine {calibration.promise}.", *text_table(_rows(calibration)))
    if machine_texts and by is None:
        kinds = map(calibration.kind, judge.are_english(machine_texts), judge.repeated_shares(machine_texts))
        tokens = judge.count_tokens(machine_texts)
        verdicts = (
            calibration.judge(score[text], count)
            for text, count, kind in zip(machine_texts, tokens, kinds, strict=True)
            if not kind
        )
        found = share_interval(torch.tensor([one.is_machine for one in verdicts if one.is_machine is not None]))
        say(f"Of {found.n:,} machine texts of these lengths and this kind it calls machine {found} (95 % interval).")
    groups_by = None if strictest else by
    if detector in (None, DEFAULT):
        named = "" if ckpt_path is None else f" --ckpt_path {quoted(ckpt_path)}"
        grouped = "" if groups_by is None else f" --data.init_args.group_column {quoted(groups_by)}"
        calibrated = f"--model.init_args.calibration {quoted(target)}"
        say(f"Use it: lit-detect predict{named} --input FILE {calibrated}{grouped}")
    else:
        grouped = "" if groups_by is None else ", groups"
        say(f"Use it: lit_detect.load({detector!r}, calibration={str(target)!r}).judge(texts{grouped})")


def platt_of(detector: str, human: Sequence[float], machine: Sequence[float]) -> Platt:
    """Return the map from scores to probabilities of machine.

    Raises:
        UserError: If machine texts have no higher scores than human ones.
    """
    labels = torch.tensor([HUMAN] * len(human) + [MACHINE] * len(machine))
    platt = fit_platt(torch.tensor([*human, *machine], dtype=torch.float64), labels)
    check_rising(platt, detector, "leave `machine` out for decisions without probabilities, or take another detector")
    return platt


def _rows(calibration: Calibration) -> Iterator[list[str]]:
    """Yield the rows of the table on the screen."""
    yield ["tokens", "human texts", "threshold", "expected rate", "95 % sure below"]
    for name, group in calibration.groups.items():
        if calibration.by is not None:
            yield [f"{calibration.by} {name}"]
        for length in (*group.lengths, group.whole):
            title = f"{group.lengths[-1].tokens:,} to " if length is group.whole else ""
            n = len(length.scores)
            allowed = allowed_above(n, calibration.fpr, calibration.confidence)
            rates = (allowed + 1) / (n + 1), beta_quantile(0.95, allowed + 1, n - allowed)
            threshold = f"{calibration.threshold(length):.6g}"
            yield [f"{title}{length.tokens:,}", f"{n:,}", threshold, *(f"{rate:.2%}" for rate in rates)]
