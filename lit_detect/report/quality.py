"""Quality of attacked texts, which does not depend on a detector: edits, similarity, perplexity, GRUEN."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from lit_core.lm.language_model import LanguageModel
from lit_core.progress import progress
from lit_core.statistics.interval import Interval
from lit_core.work import FinishedRows
from lit_detect.functional.bootstrap import bootstrap_many, ratio_statistic
from lit_detect.functional.evasion import perplexity, words_changed
from lit_detect.language.similarity import Similarity
from lit_detect.records import MACHINE, Edit, Record
from lit_detect.report.evaluate import Value, original, originals
from lit_detect.scoring.causal import score_tokens
from lit_detect.scoring.gruen import Gruen

#: Function that measures pairs of an original and an attacked text.
Measure = Callable[[Sequence[tuple[str, str]]], list[float]]
_BATCH = 8
#: Number of first tokens of a text over which the perplexity is taken.
_TOKENS = 512


def quality(
    records: Sequence[Record],
    measurements: Path,
    similarity: Similarity,
    language_model: LanguageModel | None = None,
    gruen: Gruen | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> list[tuple[str, dict[str, Value]]]:
    """Return the quality of each attack's texts, averaged over machine texts whose originals are among the records.

    Args:
        records: All texts.
        measurements: File to which finished measurements are appended, so that a killed report can be resumed.
        similarity: Similarity of originals and attacked texts.
        language_model: Language model of the perplexities; None omits them.
        gruen: Scorer of GRUEN; None omits it.
        resamples: Number of bootstrap resamples of an interval.
        seed: Seed of the resampling.

    Returns:
        By attack: ``edits`` and ``words_changed`` (a share), if the records have their edits; ``queries``;
        ``similarity``; ``perplexity_before`` and ``perplexity_after`` of the first 512 tokens; ``gruen_before`` and
        ``gruen_after``. They are means over the texts, geometric ones for perplexities. ``texts`` is the number of
        texts.
    """
    named = list(zip(originals(records), records, strict=True))
    clean = {name: record for name, record in named if not record.attack}
    pairs: dict[str, list[tuple[Record, Record]]] = {}
    for name, record in named:
        if record.attack and record.label == MACHINE and name in clean:
            pairs.setdefault(record.attack, []).append((clean[name], record))
    measures: dict[str, tuple[str, Measure]] = {}
    measures["similarity"] = (similarity.name, lambda some: [float(similarity(a, [b])[0]) for a, b in some])
    for suffix, position in (("before", 0), ("after", 1)):
        if language_model is not None:
            measures[f"perplexity_{suffix}"] = language_model.name, _log_perplexity(language_model, position)
        if gruen is not None:
            measures[f"gruen_{suffix}"] = gruen.name, _gruen(gruen, position)
    texts = [(before.text, after.text) for some in pairs.values() for before, after in some]
    measured = {name: _measured(name, *measure, texts, measurements) for name, measure in measures.items()}
    rows, start = [], 0
    for attack, some in pairs.items():
        values = {name: numbers[start : start + len(some)] for name, numbers in measured.items()} | _edits(some)
        start += len(some)
        groups = torch.tensor(_numbers([before.pair_id or f"{original(before)}\n{before.text}" for before, _ in some]))
        labels = torch.ones(len(some), dtype=torch.int64)
        every = torch.ones(len(some))
        statistics = {name: ratio_statistic(torch.tensor(numbers), every) for name, numbers in values.items()}
        means = bootstrap_many(statistics, labels, groups, resamples, seed=seed)
        row: dict[str, Value] = {"texts": float(len(some))}
        for name, mean in means.items():
            row[name] = _exp(mean) if name.startswith("perplexity") else mean
        rows.append((attack, row))
    return sorted(rows, key=lambda row: row[0])


def _edits(some: Sequence[tuple[Record, Record]]) -> dict[str, list[float]]:
    """Return the costs that are recorded in the meta of every record."""
    costs: dict[str, list[float]] = {}
    if all(isinstance(after.meta.get("edits"), list) for _, after in some):
        edits = [
            [Edit(start, end, before.text[start:end], text) for start, end, text in after.meta["edits"]]
            for before, after in some
        ]
        costs["edits"] = [float(len(own)) for own in edits]
        costs["words_changed"] = [
            words_changed(before.text, own) / max(1, len(before.text.split()))
            for (before, _), own in zip(some, edits, strict=True)
        ]
    if all(isinstance(after.meta.get("queries"), int) for _, after in some):
        costs["queries"] = [float(after.meta["queries"]) for _, after in some]
    return costs


def _log_perplexity(language_model: LanguageModel, position: int) -> Measure:
    def measure(some: Sequence[tuple[str, str]]) -> list[float]:
        most = min(_TOKENS, language_model.max_length or _TOKENS)
        rows = score_tokens(language_model, [pair[position] for pair in some], most, ("log_prob",))
        return perplexity([tokens["log_prob"] for tokens in rows]).log().tolist()

    return measure


def _gruen(gruen: Gruen, position: int) -> Measure:
    return lambda some: gruen([pair[position] for pair in some])


def _measured(
    name: str, by: str, measure: Measure, pairs: Sequence[tuple[str, str]], measurements: Path
) -> list[float]:
    """Return a measure of each pair: from the file of finished measurements, or measured and appended to it."""
    keys = [_key(name, by, *pair) for pair in pairs]
    pair_of, title = dict(zip(keys, pairs, strict=True)), f"{name} by {by}"
    busy = f"{measurements} is being written by another report; wait for it, or give another output."
    with FinishedRows(
        measurements.parent, key="pair", busy=busy, journals=measurements.name, values=("value",)
    ) as finished:
        missing = finished.missing(keys)
        batches = [missing[start : start + _BATCH] for start in range(0, len(missing), _BATCH)]
        for batch in progress(batches, title, "batches", f"{title}: {len(missing):,} texts"):
            values = measure([pair_of[key] for key in batch])
            finished.append({"pair": key, "value": value} for key, value in zip(batch, values, strict=True))
        rows = finished.gather()
    return [float(rows[key]["value"]) for key in keys]


def _key(name: str, by: str, before: str, after: str) -> str:
    read = {"before": (before,), "after": (after,)}.get(name.rpartition("_")[2], (before, after))
    text = "\0".join([name.rpartition("_")[0] or name, by, *read])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _exp(interval: Interval) -> Interval:
    return Interval(math.exp(interval.mean), math.exp(interval.low), math.exp(interval.high), interval.n)


def _numbers(names: Sequence[str]) -> list[int]:
    known = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return [known[name] for name in names]
