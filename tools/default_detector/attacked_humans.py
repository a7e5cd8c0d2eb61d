"""Human texts under attack, judged by the default detector as it ships."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

import lit_detect
from default_detector.evaluate import human_texts
from default_detector.grammar import DIALECTS, share_of, without
from default_detector.tables import markdown
from default_detector.texts import Text, plain
from lit_core.lm import smollm2
from lit_detect import attacks
from lit_detect.judging import Judgement

_SEED = 0


def attacked_humans(rows: Sequence[Text], count: int = 40) -> str:
    """Return the share of human texts that are called machine under each attack, by the domains other than their own.

    The attacks are those that need no detector, with their usual strength.
    """
    chosen = (
        attacks.AlternativeSpelling(),
        attacks.ArticleDeletion(),
        attacks.EntitySwap(),
        attacks.Homoglyph(),
        attacks.InsertParagraphs(),
        attacks.Number(),
        attacks.PerplexityMisspelling(smollm2(dtype="bfloat16")),
        attacks.UpperLower(),
        attacks.Whitespace(),
        attacks.ZeroWidthSpace(),
    )
    judge, humans = lit_detect.load("default"), human_texts(rows)
    found: dict[str, list[Judgement]] = {}
    for domain in DIALECTS:
        texts = [row.text for row in humans[domain][:count]]
        changed = {type(one).__name__: [each.text for each in one.attack_many(texts, _SEED)] for one in chosen}
        every = [text for some in (texts, *changed.values()) for text in map(plain, some)]
        judged = without(judge, domain).judge(every)  # equal texts are read once
        for number, name in enumerate(("none", *changed)):
            found.setdefault(name, []).extend(judged[number * len(texts) : (number + 1) * len(texts)])

    def table() -> Iterator[Sequence[object]]:
        clean = found["none"]
        for name, after in found.items():
            moves = [new.score - old.score for old, new in zip(clean, after, strict=True)]
            shares = (share_of(after, decision) for decision in ("machine", "abstain"))
            yield name, len(after), *shares, f"{fmean(moves):+.3f}", f"{min(moves):+.2f} to {max(moves):+.2f}"

    return markdown(["attack", "texts", "called machine", "abstained", "mean move of the score", "all moves"], table())
