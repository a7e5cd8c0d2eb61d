"""Limits of what a party discloses: to each other party, and to all of them together."""

from __future__ import annotations

from collections.abc import Iterable

from lit_core.errors import UserError
from lit_valuation.exchange.ledger import DISCLOSING, SharingLedger


def check_limit(
    ledger: SharingLedger, party: str | None, limit: int | None, fingerprints: Iterable[str], lever: str
) -> int:
    """Return how many different samples a party has been given once it has these too.

    Args:
        ledger: The ledger of the party that discloses.
        party: The other party; None means all parties together.
        limit: Most samples; None is no limit.
        fingerprints: SHA-256 of the samples to be sent.
        lever: The argument that makes them fewer, for the message.

    Raises:
        UserError: If the limit would be exceeded.
    """
    disclosed = ledger.disclosed(party)
    total = len(disclosed | set(fingerprints))
    if limit is not None and total > limit:
        argument, who = ("total_limit", "all parties together have") if party is None else ("limit", f"{party} has")
        remedy = f"lower {lever}, or raise the limit" if limit > len(disclosed) else "raise it, or share nothing more"
        raise UserError(
            f"{argument} is {limit}, but {who} been given {len(disclosed)} of your samples and would then have "
            f"{total}; {remedy}."
        )
    return total


def total_limit(ledger: SharingLedger, given: int | None) -> int | None:
    """Return the limit for all parties together: the given one, or the one that was given last, if any."""
    if given is not None:
        return given
    limits = [entry.notes.get("total_limit") for entry in ledger.entries() if entry.event in DISCLOSING]
    return next((limit for limit in reversed(limits) if limit is not None), None)
