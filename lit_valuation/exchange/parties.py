"""Names of the other parties: one party has one name, however it is spelled."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

from lit_core.errors import UserError, did_you_mean

#: Characters that are not seen (Default_Ignorable_Code_Point of Unicode, and the empty Braille cell), but for those of
#: category Cf: joiners, fillers of Hangul, vowels of Khmer, variation selectors, and code points kept for their like.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u2800\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8"
    "\U000e0000-\U000e0fff]"
)


def canonical_name(name: str) -> str:
    """Return what all spellings of a party's name have in common.

    Spellings differ in case, in compatible characters (Unicode NFKC), in characters that are not seen, in blanks, and
    in dots and slashes at the ends.

    Args:
        name: A name as typed.

    Example:
        >>> canonical_name(" The  Clinic./") == canonical_name("ｔｈｅ clinic")
        True
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    seen = "".join(c for c in _UNSEEN.sub("", folded) if unicodedata.category(c) != "Cf")
    seen = unicodedata.normalize("NFKC", seen)  # again, since what is not seen may have kept others apart
    return " ".join(seen.split()).strip(" ./\\")


def recorded_names(
    names: Sequence[str], argument: str, known: Iterable[str], new_party: bool, where: object
) -> list[str]:
    """Return the parties' names as the ledger records them: in the first spelling of each.

    A name that the ledger does not know would be a party to which nothing has been disclosed yet, with a limit of its
    own. So it is taken only if the user says that the party is new; the first command of a ledger needs no such word.

    Args:
        names: The names as typed.
        argument: Name of the argument, for error messages.
        known: The names in the ledger, the oldest first.
        new_party: Whether names may be new.
        where: The ledger, for error messages.

    Raises:
        UserError: If a name is empty or not printable, two names are of one party, or a name is new without the word.
    """
    spelling: dict[str, str] = {}
    for name in known:
        spelling.setdefault(canonical_name(name), name)
    recorded: dict[str, str] = {}
    for name in names:
        key = canonical_name(name)
        if not key or not name.isprintable():
            raise UserError(f"{argument} has the name {name!r}, but a name needs printable characters; correct it.")
        if key in recorded:
            raise UserError(f"{argument} has {name!r}, which names {recorded[key]!r} again; name each party once.")
        if key not in spelling and spelling and not new_party:
            hint = did_you_mean(key, spelling)
            raise UserError(
                f"{argument} has {name!r}, whom {where} does not know; it knows {', '.join(spelling.values())}.{hint} "
                "Correct the name; add `--new_party true` only if this party has another name nowhere in it."
            )
        recorded[key] = spelling.get(key, " ".join(unicodedata.normalize("NFKC", name).split()))
    return list(recorded.values())
