"""Regular English inflection, and the irregular forms that a table names: walked is walk + ed."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping

#: Endings by part of speech: noun, verb, adjective, adverb as WordNet abbreviates them. The empty one is the base.
ENDINGS = {"n": ("", "s"), "v": ("", "s", "ed", "ing"), "a": ("", "er", "est"), "r": ("",)}
Irregular = Mapping[tuple[str, str], tuple[str, ...]]
_VOWELS = frozenset("aeiou")


def inflect(base: str, part: str, ending: str, irregular: Irregular) -> str | None:
    """Return a form of a word.

    Args:
        base: The base form.
        part: Part of speech: n, v, a or r.
        ending: One of the part's `ENDINGS`.
        irregular: Forms by part of speech and base that are not regular, such as took and taken of take.

    Returns:
        The form; None where it is irregular in another way than by its ending, or there is none.

    Example:
        >>> inflect("carry", "v", "ed", {}), inflect("take", "v", "ed", {("v", "take"): ("took", "taken")})
        ('carried', None)
    """
    if not ending:
        return base
    forms = irregular.get((part, base), ())
    if own := [form for form in forms if form.endswith(ending)]:
        return own[0]
    if ending == "ing" or (part, ending) == ("v", "s"):
        forms = ()
    if any(not form.endswith(("ing", "s")) or part != "v" for form in forms):
        return None
    return _regular(base, part, ending)


def _regular(base: str, part: str, ending: str) -> str | None:
    sounds = len(base) > 1 and base[-2] not in _VOWELS  # a consonant before the last letter
    if part == "a" and (_syllables(base) > 1 and not base.endswith("y")):
        return None  # more beautiful
    if ending == "ing":
        if base.endswith("ie"):
            return base[:-2] + "ying"
        return base[:-1] + "ing" if base.endswith("e") and not base.endswith(("ee", "oe", "ye")) else base + "ing"
    if base.endswith("y") and sounds:
        return base[:-1] + ("ies" if ending == "s" else "i" + ending)
    if ending == "s":
        if base.endswith("o") and sounds:
            return base + "es" if part == "v" else None  # potatoes, but pianos
        return base + ("es" if base.endswith(("s", "x", "z", "ch", "sh")) else "s")
    return base + (ending[1:] if base.endswith("e") else ending)


def _syllables(word: str) -> int:
    groups = sum(a in _VOWELS and b not in _VOWELS for a, b in zip(word, word[1:] + "-", strict=True))
    return groups - (word.endswith("e") and groups > 1)


def bases_of(irregular: Irregular) -> dict[str, tuple[tuple[str, str], ...]]:
    """Return the part of speech and base of each irregular plural and past: took is take in the past."""
    found: dict[str, tuple[tuple[str, str], ...]] = {}
    for (part, base), forms in irregular.items():
        for form in forms:
            if part == "n" or (part == "v" and not form.endswith("ing")):
                found[form] = (*found.get(form, ()), (part, base))
    return found


def analyse(
    word: str,
    known: Container[tuple[str, str]],
    irregular: Irregular,
    bases: Mapping[str, tuple[tuple[str, str], ...]],
) -> Iterator[tuple[str, str, str]]:
    """Yield what a word may be a form of.

    Args:
        word: The word in small letters.
        known: Base forms with their part of speech, ``(base, part)``.
        irregular: See `inflect`.
        bases: What `bases_of` makes of it.

    Yields:
        Base, part of speech and ending, such that `inflect` gives the word, or the word is irregular and the ending is
        what regular words have in its place.

    Example:
        >>> list(analyse("tries", {("try", "n"), ("try", "v")}, {}, {}))
        [('try', 'n', 's'), ('try', 'v', 's')]
    """
    yielded = set()
    for part, base in bases.get(word, ()):
        if (base, part) in known:
            yielded.add((base, part))
            yield base, part, "s" if part == "n" or (part == "v" and word.endswith("s")) else "ed"
    for part, endings in ENDINGS.items():
        for ending in endings:
            if not word.endswith(ending):
                continue
            for base in _bases(word, ending):
                if (base, part) not in known or (ending and (base, part) in yielded):
                    continue
                if inflect(base, part, ending, irregular) == word:
                    yield base, part, ending


def _bases(word: str, ending: str) -> list[str]:
    """Return what may be left where an ending is taken off, likely ones first."""
    if not ending:
        return [word]
    stem = word[: -len(ending)]
    found = [stem, stem + "e"]
    if ending == "s":
        found = [stem] + ([word[:-2]] if word.endswith("es") else [])
    if stem.endswith("i") or word.endswith("ies"):
        found.append(stem.removesuffix("e").removesuffix("i") + "y")
    if ending == "ing" and stem.endswith("y"):
        found.append(stem[:-1] + "ie")
    if len(stem) > 2 and stem[-1] == stem[-2]:
        found.append(stem[:-1])  # stopped
    return found
