"""Whose samples are they? Answers are compared with each other and with what the ledger received before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lit_valuation.data.copies import Comparable, CopyFinder
from lit_valuation.data.fingerprints import fingerprints
from lit_valuation.exchange.ledger import SharingLedger
from lit_valuation.exchange.parties import canonical_name


@dataclass(frozen=True)
class Credit:
    """Which samples of an answer count for its owner.

    Args:
        counts: Whether each sample counts, bool of shape ``(n,)``.
        disputed: Whether another answer of this ranking holds the sample too, bool of shape ``(n,)``.
        notes: What the trainer must know, one clause each, such as ``"5 of its 12 samples …"``.
    """

    counts: Tensor
    disputed: Tensor
    notes: tuple[str, ...]


def credit(
    answers: Mapping[str, Comparable], ledger: SharingLedger, query: str, finder: CopyFinder
) -> dict[str, Credit]:
    """Find samples that several owners give, and samples that the ledger has received before.

    A sample that was received before counts only for the owner that the ledger names. A sample that two answers hold
    counts for neither of them, since nothing tells who had it first. Answers that are equal, nearly equal, or contained
    in one another are named as such.

    Args:
        answers: Samples of each owner.
        ledger: The trainer's ledger.
        query: Digest of the present query.
        finder: Finds copies.

    Returns:
        The credit of each owner.
    """
    known = ledger.givers()
    found: dict[str, Credit] = {}
    shared = {(a, b): finder.all(answers[a], answers[b]) for a in answers for b in answers if a != b}
    for name, answer in answers.items():
        samples = answer.samples
        party, of_n = canonical_name(name), f"of its {len(samples)} samples"
        hashes = zip(answer.contents, fingerprints(samples), strict=True)
        givers = [known.get(content) or known.get(labelled) for content, labelled in hashes]
        notes = []
        for giver in dict.fromkeys(entry[0] for entry in givers if entry is not None and entry[0] != party):
            count = sum(entry is not None and entry[0] == giver for entry in givers)
            whose = f"were received from {giver} before" if giver else "were received from two owners at once before"
            notes.append(f"{count} {of_n} {whose}, and do not count")
        again = sum(entry is not None and entry[0] == party and entry[1] != query for entry in givers)
        if again:
            notes.append(f"{again} {of_n} were in an answer to an earlier query, and count")
        is_own = torch.tensor([entry is not None and entry[0] == party for entry in givers], dtype=torch.bool)
        is_new = torch.tensor([entry is None for entry in givers], dtype=torch.bool)
        disputed = torch.zeros(len(samples), dtype=torch.bool)
        for other in sorted(answers.keys() - {name}):
            copied = is_new & shared[name, other]
            if copied.any():
                notes.append(f"{int(copied.sum())} {of_n} are in the answer of {other} too, and count for neither")
                disputed = disputed | copied
            relation = _relation(answer, answers[other], shared[name, other], shared[other, name])
            if relation and not is_own.all():
                notes.append(relation.format(other=f"the answer of {other}"))
        found[name] = Credit((is_own | is_new) & ~disputed, disputed, tuple(notes))
    return found


def _relation(answer: Comparable, other: Comparable, in_other: Tensor, in_this: Tensor) -> str:
    """Return what a whole answer is to the ``{other}`` one; empty if neither of them contains the other one."""
    if not len(in_other) or not len(in_this) or not (in_other.all() or in_this.all()):
        return ""
    if in_other.all() and in_this.all():
        return f"it and {{other}} are {'' if answer.content_set == other.content_set else 'near '}clones"
    return "all of it is in {other}" if in_other.all() else "it has all of {other}"
