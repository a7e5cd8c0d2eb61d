"""Whose samples are they? Answers are compared with each other and with what the ledger received before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lit_valuation.exchange.echo import CopyFinder, content_fingerprints
from lit_valuation.exchange.ledger import SharingLedger, fingerprints
from lit_valuation.exchange.parties import canonical_name
from lit_valuation.samples import Samples


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


def credit(answers: Mapping[str, Samples], ledger: SharingLedger, query: str, finder: CopyFinder) -> dict[str, Credit]:
    """Find samples that several owners give, and samples that the ledger has received before.

    A sample that was received before counts only for the owner that the ledger names. A sample that two answers hold
    counts for neither of them, since nothing tells who had it first.

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
    for name, samples in answers.items():
        party, of_n = canonical_name(name), f"of its {len(samples)} samples"
        hashes = zip(content_fingerprints(samples), fingerprints(samples), strict=True)
        givers = [known.get(content) or known.get(labelled) for content, labelled in hashes]
        notes = []
        for giver in dict.fromkeys(entry[0] for entry in givers if entry is not None and entry[0] != party):
            count = sum(entry is not None and entry[0] == giver for entry in givers)
            whose = f"were received from {giver} before" if giver else "were received from two owners at once before"
            notes.append(f"{count} {of_n} {whose}, and do not count")
        again = sum(entry is not None and entry[0] == party and entry[1] != query for entry in givers)
        if again:
            notes.append(f"{again} {of_n} were in an answer to an earlier query, and count")
        is_new = torch.tensor([entry is None for entry in givers], dtype=torch.bool)
        disputed = torch.zeros(len(samples), dtype=torch.bool)
        for other in sorted(answers.keys() - {name}):
            copied = is_new & finder.all(samples, answers[other])
            if copied.any():
                notes.append(f"{int(copied.sum())} {of_n} are in the answer of {other} too, and count for neither")
                disputed = disputed | copied
        is_own = torch.tensor([entry is not None and entry[0] == party for entry in givers], dtype=torch.bool)
        found[name] = Credit((is_own | is_new) & ~disputed, disputed, tuple(notes))
    return found
