"""Judgement of all answers of a ranking before the first training: which are ranked, with which samples, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from lit_core.errors import UserError
from lit_valuation.data.copies import Comparable, CopyFinder, content_fingerprints
from lit_valuation.encoders import Encoder
from lit_valuation.exchange.acceptance import TrainerData, accept
from lit_valuation.exchange.credit import Credit, credit
from lit_valuation.exchange.folder import Received, blamed_on
from lit_valuation.exchange.ledger import Entry, SharingLedger, named_fingerprints
from lit_valuation.exchange.manifest import Answer, Query
from lit_valuation.exchange.overlap import Overlap, OverlapFinder
from lit_valuation.exchange.parties import canonical_name
from lit_valuation.exchange.proxy_scores import mean_psi, relative_residual
from lit_valuation.functional.mass import Weights
from lit_valuation.samples import Samples


@dataclass(frozen=True)
class Judged:
    """An answer that is ranked.

    Args:
        answer: The answer.
        samples: Those of its samples that count.
        within: How much each of them counts among them, float64 of shape ``(n,)``.
        residual: Relative residual of their gradients.
        psi: Mean psi of their features; None without an encoder.
    """

    answer: Received[Answer]
    samples: Samples
    within: Tensor
    residual: float
    psi: float | None


@dataclass
class Judgement:
    """What becomes of each answer. No answer decides about another one, but for the samples that both hold.

    Args:
        ranked: The answers that are ranked, by owner.
        refused: Why the others are not, by owner; answers can be refused later too.
        notes: What else the trainer must know, by owner.
        received: The answers that are as they were asked for, with their samples but for the trainer's own ones, and
            with what counts of these, to be recorded.
        overlaps: Which samples of these answers are the trainer's, by owner.
    """

    ranked: dict[str, Judged] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    received: dict[str, tuple[Received[Answer], Samples, Credit]] = field(default_factory=dict)
    overlaps: dict[str, Overlap] = field(default_factory=dict)

    @property
    def left_out(self) -> bool:
        """Whether an answer is refused, or samples of one do not count."""
        overlaps = any(overlap.is_own.any() for overlap in self.overlaps.values())
        return overlaps or bool(self.refused) or not all(owned.counts.all() for _, _, owned in self.received.values())

    def record(self, ledger: SharingLedger, query: Received[Query]) -> None:
        """Record the received answers in the ledger, each once per owner."""
        with ledger.locked():
            for name, (answer, samples, owned) in self.received.items():
                if ledger.find("received", answer.digest, name) is None:
                    disputed = content_fingerprints(samples.take(owned.disputed.nonzero().squeeze(1)))
                    notes: dict[str, Any] = {
                        "query": query.digest,
                        "contents": list(content_fingerprints(answer.samples)),
                    }
                    notes |= {"disputed": list(disputed)} if disputed else {}
                    overlap = self.overlaps[name].counts
                    notes |= {"overlaps": overlap} if overlap else {}
                    content = named_fingerprints(answer.samples, answer.manifest.keys)
                    ledger.append(Entry("received", name, answer.digest, query.manifest.budget, content, notes))


def judge(
    answers: Mapping[str, str],
    query: Received[Query],
    own: TrainerData,
    ledger: SharingLedger,
    task: LightningModule,
    *,
    digests: Mapping[str, str],
    near: float,
    fewest: int,
    encoder: Encoder | None,
    weights: Weights,
) -> Judgement:
    """Read and judge all answers. Whatever is in one of them, the others are judged as if it were not there.

    Args:
        answers: Folders by owner.
        query: The query.
        own: The trainer's data.
        ledger: The trainer's ledger.
        task: The trainer's model.
        digests: The digests that owners read out, by owner.
        near: Fraction of the natural distance within which a sample counts as a copy; 0 finds exact copies only.
        fewest: Fewest samples that must count of an answer.
        encoder: Encoder that finds copies and computes psi; None compares values only.
        weights: Whether the samples of an answer count equally, or by the weights of its manifest.
    """
    result = Judgement()
    finder = CopyFinder(own.train, own.hard_cases, near, encoder)
    own_sets = OverlapFinder(own, finder)
    read: dict[str, tuple[Received[Answer], Comparable]] = {}

    for name, path in answers.items():
        with _refusing(result, name, path):
            answer = accept(path, query, digests.get(name), ledger)
            overlap = own_sets.find(finder.prepare(answer.samples))
            others = answer.samples.take((~overlap.is_own).nonzero().squeeze(1))
            read[name], result.overlaps[name] = (answer, finder.prepare(others)), overlap
    credits = credit({name: rest for name, (_, rest) in read.items()}, ledger, query.digest, finder)
    asked = {canonical_name(entry.counterparty) for entry in ledger.entries() if entry.digest == query.digest}
    for name, (answer, rest) in read.items():
        owned, samples = credits[name], rest.samples
        result.received[name] = answer, samples, owned
        notes = [note for note in (result.overlaps[name].note, *owned.notes) if note]
        with _refusing(result, name, answers[name]):
            nearly = any(result.overlaps[name].near.values())
            _check_size(answers[name], int(owned.counts.sum()), fewest, notes, nearly, bool(owned.notes))
            counted = samples.take(owned.counts.nonzero().squeeze(1)).renumbered(own.train.classes)
            within = _within(answer.manifest, counted.keys, weights, answers[name])
            residual = relative_residual(task, counted, own.queries)
            psi = None if encoder is None else mean_psi(encoder, counted, own.queries)
            result.ranked[name] = Judged(answer, counted, within, residual, psi)
            unasked = [] if canonical_name(name) in asked else ["the ledger does not say that the query was sent to it"]
            if notes or unasked:
                result.notes[name] = "; ".join([*notes, *unasked])
    return result


def _check_size(path: str, count: int, fewest: int, notes: Sequence[str], nearly: bool, others: bool) -> None:
    """Refuse an answer of which too few samples count.

    Args:
        path: Its folder.
        count: Number of samples that count.
        fewest: Fewest samples that must count.
        notes: Why others do not.
        nearly: Whether some of them nearly equal samples of the trainer.
        others: Whether some are those of other owners.
    """
    if count >= fewest:
        return
    left = f"has only {count} samples that count, but --fewest is {fewest}" if count else "has no sample that counts"
    whose = "find out whose they are and record it by SharingLedger.credit, see docs/exchange.md"
    lower = "lower --near if nearly equal ones are different samples, or " if nearly else ""
    remedy = whose if others else f"{lower}ask its owner for another answer"
    raise UserError(f"{path} {left}{': ' if notes else ''}{'; '.join(notes)}; {remedy}.")


def _within(answer: Answer, keys: Sequence[str], weights: Weights, path: str) -> Tensor:
    """Return how much each of some samples of an answer counts among them."""
    if weights == "equal":
        return torch.ones(len(keys), dtype=torch.float64)
    given = dict(zip(answer.keys, answer.weights, strict=True))
    within = torch.tensor([given[key] for key in keys], dtype=torch.float64)
    if not within.max() > 0:
        raise UserError(
            f"{path} gives each of its samples that count a weight of 0; rank with --weights equal, or ask its owner "
            "for another answer."
        )
    return within


@contextmanager
def _refusing(result: Judgement, name: str, path: str) -> Iterator[None]:
    """Note as refused the owner whose answer raises an exception."""
    try:
        with blamed_on(path):
            yield
    except UserError as error:
        result.refused[name] = str(error)
