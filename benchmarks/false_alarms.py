"""How often human texts are called machine after a calibration: by rule, length, kind of text and batch.

    python benchmarks/false_alarms.py --draws 200 --output docs/results/false_alarms.md

The texts are passages of novels that ship, of random lengths. Their scores are those of a logistic regression on
character 1- to 3-grams, fitted on the shipped pairs, which reads a passage whole or in windows. ``--published`` adds
the human texts of Fast-DetectGPT's files (https://github.com/baoguangsheng/fast-detect-gpt). ``--scores`` adds scores
under any detector, as ``benchmarks/human_scores.py`` writes them: a JSONL with ``id`` of the text, ``tokens``,
``score`` and ``domain`` in each row, where the row of a text with the most tokens is the whole text and others are its
beginnings.
"""

from __future__ import annotations

import argparse
import math
import random
import shlex
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import mean, stdev

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from lit_core.corpora.austen import Austen
from lit_core.files.json_files import json_lines
from lit_core.files.paths import atomic_write
from lit_core.files.tables import markdown_table
from lit_core.statistics.beta import beta_probability
from lit_detect.accusations import with_fdr
from lit_detect.calibration import Calibration
from lit_detect.formats import EmbeddedPairs, FastDetectGPTJSON
from lit_detect.functional.conformal import allowed_above
from lit_detect.functional.shape import character_scores
from lit_detect.human_scores import Group, Length
from lit_detect.prefixes import cut_to_lengths, length_grid
from lit_detect.records import HUMAN

SEED, FPR, CONFIDENCE = 0, 0.05, 0.95
SHORTEST, WINDOW, BUCKET, LAST_BUCKET = 50, 128, 100, 900
#: Lengths to which texts are cut; of those that are not of a calibration's grid, one may be its last.
FINE = [round(SHORTEST * 2 ** (step / 4)) for step in range(24)]
TESTED, BATCH, FDR = 150, 100, 0.1
BANDS = (50, 100, 200, 400, 10_000)
#: Texts of a range of lengths below which it has no rate, but only a count.
FEWEST = 50
#: How far scores are raised to make texts that should be found, in standard deviations of those of whole texts.
RAISED = 2.0
#: Tells whether a text is called machine, None where it abstains.
Rule = Callable[[float, int], bool | None]


@dataclass(frozen=True)
class Text:
    """A human text: its score, its length, and the scores of its beginnings by length."""

    score: float
    tokens: int
    beginnings: Mapping[int, float]
    domain: str = ""


def passages() -> Iterator[tuple[str, str]]:
    """Yield passages of the shipped novels, of 50 to 1,500 words with a median of about 180, and the novel."""
    draw = random.Random(SEED)
    for document in Austen().documents():
        words, start = document.text.split(), 0
        while start < len(words):
            length = round(min(1500, max(SHORTEST, draw.lognormvariate(math.log(180), 0.8))))
            if start + length <= len(words):
                yield " ".join(words[start : start + length]), document.group
            start += length


def published(folder: str) -> list[tuple[str, str]]:
    """Return the different human texts of Fast-DetectGPT's files, each as long as it occurs, and their data set."""
    longest: dict[str, tuple[str, str]] = {}
    for record in FastDetectGPTJSON(folder).records():
        if record.label == HUMAN and len(record.text) > len(longest.get(record.pair_id, ("", ""))[0]):
            longest[record.pair_id] = record.text, record.domain
    return [own for own in longest.values() if count([own[0]])[0] >= SHORTEST]


def count(texts: Sequence[str]) -> list[int]:
    """Return the number of words of each text; here a word is a token."""
    return [len(text.split()) for text in texts]


def windows(text: str, size: int | None) -> list[str]:
    """Return overlapping windows of so many words, the last one full."""
    words = text.split()
    if size is None or len(words) <= size:
        return [text]
    starts = [*range(0, len(words) - size, size // 2), len(words) - size]
    return [" ".join(words[start : start + size]) for start in starts]


def scored(named: Sequence[tuple[str, str]], size: int | None) -> list[Text]:
    """Return texts, given with their kinds, with their scores and those of their beginnings, the largest of windows."""
    texts = [text for text, _ in named]
    records = list(EmbeddedPairs().records())
    vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), lowercase=False, sublinear_tf=True)
    classifier = make_pipeline(vectorizer, LogisticRegression(max_iter=1000))
    classifier.fit([record.text for record in records], [record.label for record in records])
    tokens = count(texts)
    cut = cut_to_lengths(texts, tokens, FINE, count)
    parts = [windows(text, size) for own, whole in zip(cut, texts, strict=True) for text in (*own.values(), whole)]
    known = iter(classifier.decision_function([window for own in parts for window in own]).tolist())
    scores = iter([max(next(known) for _ in own) for own in parts])
    found = []
    for number, own, (_, kind) in zip(tokens, cut, named, strict=True):
        beginnings = {length: next(scores) for length in own}
        found.append(Text(next(scores), number, beginnings, kind))
    return found


def pair_texts() -> list[Text]:
    """Return the human texts of the shipped pairs with scores that were fitted without their fold."""
    records = list(EmbeddedPairs().records())
    labels, groups = [one.label for one in records], [str(one.pair_id) for one in records]
    scores = character_scores([one.text for one in records], labels, groups, "texts").tolist()
    rows = zip(records, scores, count([one.text for one in records]), strict=True)
    return [
        Text(score, tokens, dict.fromkeys((length for length in FINE if length <= tokens), score), one.domain)
        for one, score, tokens in rows
        if one.label == HUMAN
    ]


def given(path: Path) -> list[Text]:
    """Return the texts of a file of scores."""
    rows = defaultdict(dict)
    domain: dict[str, str] = {}
    for _, row in json_lines(path):
        rows[str(row["id"])][int(row["tokens"])] = float(row["score"])
        domain[str(row["id"])] = str(row.get("domain", ""))
    texts = []
    for name, scores in rows.items():
        tokens = max(scores)
        if tokens >= SHORTEST:
            texts.append(Text(scores[tokens], tokens, scores, domain[name]))
    return texts


def calibrated(texts: Sequence[Text], confidence: float | None = None) -> Calibration:
    """Return the calibration of human texts, as ``lit-detect calibrate`` makes it."""
    longest = sorted((text.tokens for text in texts), reverse=True)[math.ceil(3 / FPR) - 1]
    given = set.intersection(*({*text.beginnings} for text in texts if text.tokens >= longest))
    last = max(length for length in given.intersection(FINE) if length <= longest)
    lengths = [
        Length(length, tuple(sorted(text.beginnings[length] for text in texts if text.tokens >= length)))
        for length in length_grid(SHORTEST, last)
    ]
    long = [text for text in texts if text.tokens >= lengths[-1].tokens]
    whole = Length(max(text.tokens for text in long), tuple(sorted(text.score for text in long)))
    return Calibration(FPR, "", None, {"": Group(tuple(lengths), whole)}, confidence=confidence)


def by_length(texts: Sequence[Text], confidence: float | None = None) -> Rule:
    """Return our rule: a text is compared with beginnings of its length."""
    calibration = calibrated(texts, confidence)
    return lambda score, tokens: calibration.judge(score, tokens).is_machine


def at_one_threshold(texts: Sequence[Text]) -> Rule:
    """Return the conformal rule with one threshold for all lengths."""
    ordered = sorted((text.score for text in texts), reverse=True)
    last = ordered[allowed_above(len(ordered), FPR)]
    return lambda score, tokens: score > last


def in_buckets(texts: Sequence[Text]) -> Rule:
    """Return the rule of multiscaled conformal prediction: a quantile of the whole texts of each range of lengths.

    As in the published program: ranges of 100 tokens, the last one open, the quantile interpolated between scores and
    never above the largest, and nothing called machine where there is no human text.
    """
    scores = defaultdict(list)
    for text in texts:
        scores[min(text.tokens, LAST_BUCKET) // BUCKET].append(text.score)
    limits = {
        key: float(np.quantile(own, min(1.0, math.ceil((len(own) + 1) * (1 - FPR)) / len(own))))
        for key, own in scores.items()
    }
    return lambda score, tokens: score > limits.get(min(tokens, LAST_BUCKET) // BUCKET, math.inf)


RULES: dict[str, Callable[[Sequence[Text]], Rule]] = {
    "one threshold": at_one_threshold,
    "ranges of lengths (MCP)": in_buckets,
    "by length, in expectation": by_length,
    "by length, 95 % sure": partial(by_length, confidence=CONFIDENCE),
}


def rate(values: Sequence[float]) -> str:
    """Return a mean over draws with its interval of 95 %."""
    if len(values) < 2:
        return "–"
    half = 1.96 * stdev(values) / math.sqrt(len(values))
    return f"{mean(values):.1%} ± {half:.1%}"


def share(values: Sequence[bool | None]) -> list[float]:
    """Return the share that is called machine among those that are decided, as a list of one value or none."""
    decided = [value for value in values if value is not None]
    return [sum(decided) / len(decided)] if decided else []


def exact_rows() -> Iterator[list[str]]:
    """Yield what the former rule and ours promise, from the beta distribution of the true rate."""
    for fpr in (0.05, 0.01):
        for n in (20, 60, 100, 300, 600, 1000):
            cells = [f"{fpr:.0%}", f"{n:,}"]
            former = math.floor(fpr * n + 1e-9)
            for allowed in (former, allowed_above(n, fpr), allowed_above(n, fpr, CONFIDENCE)):
                held = beta_probability(fpr, allowed + 1, n - allowed) if allowed >= 0 else math.nan
                cells += [f"{(allowed + 1) / (n + 1):.2%}", f"{held:.0%}"] if allowed >= 0 else ["too few", ""]
            yield cells


def length_rows(texts: Sequence[Text], n: int, draws: int) -> Iterator[list[str]]:
    """Yield the rates of each rule by length: of human texts, and of such with raised scores."""
    draw, raised = random.Random(SEED), RAISED * stdev(text.score for text in texts)
    found = defaultdict(list)
    for _ in range(draws):
        chosen = draw.sample(texts, n + TESTED)
        for name, make in RULES.items():
            rule = make(chosen[:n])
            for low, high in pairwise(BANDS):
                band = [text for text in chosen[n:] if low <= text.tokens < high]
                called = [rule(text.score, text.tokens) for text in band]
                found[name, low] += share(called)
            everybody = [rule(text.score, text.tokens) for text in chosen[n:]]
            found[name, "all"] += share(everybody)
            found[name, "decided"].append(1 - everybody.count(None) / len(everybody))
            found[name, "power"].append(
                sum(rule(text.score + raised, text.tokens) or False for text in chosen[n:]) / TESTED
            )
    known = [sum(low <= text.tokens < high for text in texts) for low, high in pairwise(BANDS)]
    for name in RULES:
        bands = [
            rate(found[name, low]) if number >= FEWEST else f"{number} texts"
            for low, number in zip(BANDS, known, strict=False)
        ]
        rest = [f"{mean(found[name, key]):.1%}" for key in ("decided", "power")]
        yield [name, f"{n:,}", *bands, rate(found[name, "all"]), *rest]


def kind_rows(texts: Sequence[Text], draws: int) -> Iterator[list[str]]:
    """Yield the rates of human texts of each kind by a calibration on half of those of each kind."""
    kinds = defaultdict(list)
    for text in texts:
        kinds[text.domain].append(text)
    draw, found = random.Random(SEED), defaultdict(list)
    enough = sorted(name for name, own in kinds.items() if len(own) >= 2 * math.ceil(3 / FPR))
    for _ in range(draws):
        halves = {name: draw.sample(kinds[name], len(kinds[name])) for name in enough}
        for one in enough:
            rule = by_length(halves[one][: len(halves[one]) // 2])
            for other in enough:
                found[one, other] += share([rule(t.score, t.tokens) for t in halves[other][len(halves[other]) // 2 :]])
    for one in enough:
        yield [one, *(rate(found[one, other]) for other in enough)]


def batch_rows(texts: Sequence[Text], draws: int) -> Iterator[list[str]]:
    """Yield what batches with some texts of raised scores give, with and without a false discovery rate."""
    draw, raised = random.Random(SEED), RAISED * stdev(text.score for text in texts)
    for machines in (0, 5, 20, 50):
        found = defaultdict(list)
        for _ in range(draws):
            chosen = draw.sample(texts, 600 + BATCH)
            calibration = calibrated(chosen[:600])
            rows = []
            for number, text in enumerate(chosen[600:]):
                score = text.score + (raised if number < machines else 0.0)
                p_value, is_machine, reason = calibration.judge(score, text.tokens)
                rows.append({"p_value": p_value, "decision": "machine" if is_machine else "human", "reason": reason})
            for name, own in (("alone", rows), ("fdr", with_fdr(rows, FDR))):
                called = [number for number, row in enumerate(own) if row["decision"] == "machine"]
                false = sum(number >= machines for number in called)
                found[name, "false"].append(false)
                found[name, "share"].append(false / max(len(called), 1))
                found[name, "found"].append((len(called) - false) / max(machines, 1))
        cells = [f"{machines} of {BATCH}"]
        for name in ("alone", "fdr"):
            power = f"{mean(found[name, 'found']):.0%}" if machines else "–"
            cells += [f"{mean(found[name, 'false']):.2f}", rate(found[name, "share"]), power]
        yield cells


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=200, help="calibrations per row")
    parser.add_argument("--published", help="folder of Fast-DetectGPT's files, whose human texts are tested too")
    parser.add_argument("--scores", type=Path, help="scores of other human texts")
    parser.add_argument("--output", type=Path, required=True, help="the page to write")
    options = parser.parse_args()
    novels = list(passages())
    sets = {
        f"{len(novels):,} passages of novels, read whole": scored(novels, None),
        f"The same in windows of {WINDOW} words, the largest of which counts": scored(novels, WINDOW),
    }
    if options.published:
        own = published(options.published)
        sets[f"{len(own):,} human texts of Fast-DetectGPT's files (news, stories, Wikipedia)"] = scored(own, None)
    if options.scores:
        own = given(options.scores)
        sets[f"{len(own):,} texts of {options.scores.name}"] = own
    atomic_write(options.output, "\n".join(page(sets, options.draws)) + "\n")


def page(sets: Mapping[str, Sequence[Text]], draws: int) -> list[str]:
    """Return the lines of the page."""
    bands = [f"{low} to {high - 1}" if high < BANDS[-1] else f"{low} or more" for low, high in pairwise(BANDS)]
    columns = ["rule", "human texts", *bands, "all", "decided", "found"]
    former = [f"{name}: {what}" for name in ("former", "in expectation", "95 % sure") for what in ("rate", "kept")]
    lines = [
        "# How often human texts are called machine",
        "",
        f"Written by `{shlex.join(['python', *sys.argv])}` with seed {SEED}. Rates are means over {draws} calibrations "
        "with intervals of 95 %. Texts to calibrate with and texts to test are drawn anew each time, without "
        "replacement and from the same texts: the human texts that are judged are like those of the calibration, which "
        "is what every rate here rests on. **Another kind of text has another rate**; see the last section.",
        "",
        "## What the rule promises",
        "",
        "Of n human texts, the former rule let floor(fpr n) pass the threshold, the conformal one "
        "floor(fpr (n + 1)) - 1, and with 95 % confidence fewer. *Rate* is the share of fresh human texts that are "
        "called machine, in expectation; *kept* is how often the true rate of a calibration is at most what was "
        "promised. Both are exact (beta distribution), whatever the detector, if no scores are equal.",
        "",
        *markdown_table(["promised", "human texts", *former], exact_rows()),
        "",
        f"## What length does, at {FPR:.0%}",
        "",
        "Columns of lengths, in words, are shares of human texts of that length that are called machine, among those "
        "decided. *Found* is the share of other texts called machine whose scores were raised by "
        f"{RAISED:g} standard deviations: what each rule costs in power on the same scores. *Ranges of lengths* is "
        "multiscaled conformal prediction (Zhu et al. 2025, arXiv 2505.05084) as its published program has it: a "
        f"quantile for each {BUCKET} tokens, from whole texts of that length. It is sharper where each range has many "
        "texts, and exceeds its rate where one has few, since it then calls machine what is above all of them. Ours "
        "compares with beginnings of longer texts too, so that each length has enough, takes the stricter of two "
        "neighbouring lengths, and so stays below its rate; above the last length that enough texts have, it compares "
        "with whole texts, and there the rate holds on average over these lengths only. It supposes that short texts "
        "are like beginnings of longer ones. Where they are of another kind, as the few stories below 100 words among "
        "the texts of Fast-DetectGPT, no rate is promised for them, as for any other kind.",
        "",
    ]
    for name, texts in sets.items():
        rows = [row for n in (60, 300, 1000) if n + TESTED <= len(texts) for row in length_rows(texts, n, draws)]
        lines += [f"### {name}", "", *markdown_table(columns, rows), ""]
    first = next(iter(sets.values()))
    alone = [f"{name}: {what}" for name in ("alone", "FDR") for what in ("false", "share of humans", "found")]
    lines += [
        "## What a batch holds",
        "",
        f"Batches of {BATCH} texts, of which some have raised scores; calibrated on 600 texts at {FPR:.0%}. *Alone* is "
        f"each text by its own p-value, *FDR* with a false discovery rate of {FDR:.0%} besides. *False* is the number "
        "of human texts called machine, *share of humans* their share among the texts called machine.",
        "",
        *markdown_table(["raised", *alone], batch_rows(first, draws)),
        "",
        "## Where the promise breaks",
        "",
        f"Human texts of one kind (column) by a calibration on half of the texts of another (row), at {FPR:.0%}. Where "
        "both are the same, the other half is judged.",
        "",
    ]
    for name, texts in {"The shipped pairs' human texts, of 80 words": pair_texts(), **sets}.items():
        rows = list(kind_rows(texts, draws))
        if len(rows) > 1:
            lines += [f"### {name}", "", *markdown_table(["calibrated on", *(row[0] for row in rows)], rows), ""]
    return lines


if __name__ == "__main__":
    main()
