"""The default detector where it was not made: a domain, a family of generators, or both left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from default_detector.documents import Documents
from default_detector.model import Linear, features, fit
from default_detector.texts import Text
from lit_core.statistics.interval import Interval
from lit_core.statistics.proportion import share_interval
from lit_core.statistics.roc import auroc_interval, tpr_interval
from lit_detect.calibration import Calibration, Verdict
from lit_detect.functional.calibration import Platt, fit_platt
from lit_detect.human_scores import Group, Length
from lit_detect.prefixes import length_grid
from lit_detect.records import HUMAN, MACHINE
from lit_detect.scoring.causal import TokenScores

#: The promised false-positive rate, tokens below which the detector abstains, and human texts per domain and length.
FPR, MIN_TOKENS, NEEDED = 0.05, 50, 60
#: Name of the default detector.
NAME = "Default[SmolLM2-135M-Instruct]"
#: The language that the coefficients are not fitted to.
FOREIGN = ("handbook_de",)


@dataclass
class Study:
    """All texts with what was measured of their tokens.

    Args:
        rows: The texts.
        quantities: What the language model says of the tokens of each, by text.
        documents: Whole documents of the Brown corpus; None for no calibration beyond a window.
    """

    rows: list[Text]
    quantities: dict[str, TokenScores]
    documents: Documents | None = None

    def __post_init__(self) -> None:
        self._features: dict[tuple[str, int], Tensor] = {}
        self.values = torch.stack([self.of(row) for row in self.rows])
        self.labels = torch.tensor([row.label for row in self.rows])
        names = sorted({row.pair for row in self.rows})
        self.pairs = torch.tensor([names.index(row.pair) for row in self.rows])

    def tokens(self, row: Text) -> int:
        """Return the number of tokens of a text that were measured."""
        return len(self.quantities[row.text]["log_prob"])

    def of(self, row: Text, tokens: int | None = None) -> Tensor:
        """Return the features of the first tokens of a text; None takes all."""
        size = min(tokens or 10**9, self.tokens(row))
        key = (row.text, size)
        if key not in self._features:
            self._features[key] = features(self.quantities[row.text], size)
        return self._features[key]

    def mask(self, domain: str | None = None, family: str | None = None, label: int | None = None) -> Tensor:
        """Return which texts are of a domain, a family and a label, bool of shape ``(n,)``."""
        return torch.tensor(
            [
                (domain is None or row.domain == domain)
                and (family is None or row.family == family)
                and (label is None or row.label == label)
                for row in self.rows
            ]
        )

    def fitted(self, without_domain: str | None = None, without_family: str | None = None) -> Linear:
        """Return the model fitted to instructed generators and human texts in English, without what is left out."""
        return fit(self.values, self.rows, self.usable(without_domain, without_family))

    def usable(self, without_domain: str | None = None, without_family: str | None = None) -> Tensor:
        """Return which texts may be fitted to, bool of shape ``(n,)``."""
        return torch.tensor(
            [
                row.domain not in (without_domain, *FOREIGN) and row.family != without_family and not row.is_base
                for row in self.rows
            ]
        )

    def humans(self, without_domain: str | None = None) -> dict[str, list[Text]]:
        """Return the human texts to calibrate with; see `human_texts`."""
        return human_texts(self.rows, without_domain)

    def calibration(self, model: Linear, without_domain: str | None = None) -> Calibration:
        """Return the strictest calibration over the domains, by length, from cuts of human texts."""
        groups = {}
        for domain, texts in self.humans(without_domain).items():
            counts = sorted((self.tokens(row) for row in texts), reverse=True)
            if len(texts) < NEEDED or counts[NEEDED - 1] < MIN_TOKENS:
                continue
            lengths = []
            for tokens in length_grid(MIN_TOKENS, counts[NEEDED - 1]):
                long = [row for row in texts if self.tokens(row) >= tokens]
                scores = model(torch.stack([self.of(row, tokens) for row in long]))
                lengths.append(Length(tokens, tuple(sorted(scores.tolist()))))
            whole = [row for row in texts if self.tokens(row) >= lengths[-1].tokens]
            scores = model(torch.stack([self.of(row) for row in whole]))
            groups[domain] = Group(tuple(lengths), Length(max(counts), tuple(sorted(scores.tolist()))))
        if self.documents is not None and not (without_domain or "").startswith("brown"):
            groups["brown_documents"] = self.documents.group(model)
        return Calibration(FPR, NAME, None, groups, by="domain", strictest=True)

    def scores(self) -> list[dict[str, Any]]:
        """Return scores of human texts and their beginnings, their domain left out, for benchmarks/false_alarms.py."""
        rows = []
        for domain, texts in self.humans().items():
            model = self.fitted(domain)
            for number, row in enumerate(texts):
                size = self.tokens(row)
                if size < MIN_TOKENS:
                    continue
                for tokens in sorted({*length_grid(MIN_TOKENS, size)[:-1], size}):
                    score = float(model(self.of(row, tokens)))
                    rows.append({"id": f"{domain} {number}", "domain": domain, "tokens": tokens, "score": score})
        return rows

    def verdicts(
        self, model: Linear, calibration: Calibration, rows: Sequence[Text], tokens: int | None = None
    ) -> list[Verdict]:
        """Judge texts, or their first tokens."""
        scores = model(torch.stack([self.of(row, tokens) for row in rows])).tolist()
        sizes = [min(tokens or 10**9, self.tokens(row)) for row in rows]
        return [calibration.judge(score, size) for score, size in zip(scores, sizes, strict=True)]

    def platt(self) -> Platt:
        """Return the map from scores to probabilities, from scores of texts whose domain was left out of the fit."""
        scores, labels = [], []
        for domain in sorted({row.domain for row in self.rows if row.label == MACHINE and row.domain != "squad"}):
            own = self.mask(domain) & torch.tensor([not row.is_base for row in self.rows])
            scores.append(self.fitted(domain)(self.values[own]))
            labels.append(self.labels[own])
        return fit_platt(torch.cat(scores), torch.cat(labels))

    def ranking(self, scores: Tensor, domain: str, generator: str) -> tuple[Interval, Interval, Interval]:
        """Return AUROC and the true-positive rates at 1 and 5 % of a generator in a domain."""
        own = torch.tensor(
            [row.domain == domain and row.generator in ("human", generator) and not row.attack for row in self.rows]
        )
        values, machine, pairs = scores[own], self.labels[own] == MACHINE, self.pairs[own]
        return (
            auroc_interval(values, machine, pairs),
            tpr_interval(values, machine, 0.01, pairs),
            tpr_interval(values, machine, 0.05, pairs),
        )


#: Domains whose human texts repeat over generators.
_TWINS = ("xsum", "writing", "squad")


def human_texts(rows: Sequence[Text], without_domain: str | None = None) -> dict[str, list[Text]]:
    """Return the human texts of each domain, one of each that has twins."""
    found: dict[str, dict[str, Text]] = {}
    for row in rows:
        if row.label == HUMAN and row.domain != without_domain:
            own = found.setdefault(row.domain, {})
            if row.pair not in own or len(own[row.pair].text) < len(row.text) or row.domain not in _TWINS:
                own[row.pair if row.domain in _TWINS else row.text] = row
    return {domain: list(own.values()) for domain, own in sorted(found.items())}


def called(verdicts: Sequence[Verdict], rows: Sequence[Text]) -> Interval:
    """Return the share of texts that are called machine, of all that were judged, by pair."""
    return _share([verdict.is_machine is True for verdict in verdicts], rows)


def decided(verdicts: Sequence[Verdict], rows: Sequence[Text]) -> Interval:
    """Return the share of texts on which the detector decides."""
    return _share([verdict.is_machine is not None for verdict in verdicts], rows)


def _share(hits: Sequence[bool], rows: Sequence[Text]) -> Interval:
    names = sorted({row.pair for row in rows})
    return share_interval(torch.tensor(hits), torch.tensor([names.index(row.pair) for row in rows]))
