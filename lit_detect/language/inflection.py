"""English inflection: regular forms by rules, and irregular forms by a table."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping

#: Endings by part of speech (n noun, v verb, a adjective, r adverb, as in WordNet). The empty ending is the base form.
ENDINGS = {"n": ("", "s"), "v": ("", "s", "ed", "ing"), "a": ("", "er", "est"), "r": ("",)}
Irregular = Mapping[tuple[str, str], tuple[str, ...]]
_VOWELS = frozenset("aeiou")


def inflect(base: str, part: str, ending: str, irregular: Irregular) -> str | None:
    """Return an inflected form of a word.

    Args:
        base: The base form.
        part: Part of speech: n, v, a or r.
        ending: One of the part's `ENDINGS`.
        irregular: Irregular forms by part of speech and base, such as took and taken of take.

    Returns:
        The form; None if it is irregular and does not have the ending, or if there is no such form.

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
    """Return part of speech and base of each irregular plural and past form, such as took: (v, take).

    Args:
        irregular: See `inflect`.
    """
    bases: dict[str, tuple[tuple[str, str], ...]] = {}
    for (part, base), forms in irregular.items():
        for form in forms:
            if part == "n" or (part == "v" and not form.endswith("ing")):
                bases[form] = (*bases.get(form, ()), (part, base))
    return bases


def analyse(
    word: str,
    known: Container[tuple[str, str]],
    irregular: Irregular,
    bases: Mapping[str, tuple[tuple[str, str], ...]],
) -> Iterator[tuple[str, str, str]]:
    """Yield the analyses of a word as an inflected form of known words.

    Args:
        word: The word in lower case.
        known: Base forms with their part of speech, ``(base, part)``.
        irregular: See `inflect`.
        bases: The result of `bases_of` for ``irregular``.

    Yields:
        Base, part of speech and ending. `inflect` returns the word for them, or the word is irregular and the ending is
        that of the corresponding regular form.

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
    """Return the possible bases of a word with an ending, likely ones first."""
    if not ending:
        return [word]
    stem = word[: -len(ending)]
    bases = [stem, stem + "e"]
    if ending == "s":
        bases = [stem] + ([word[:-2]] if word.endswith("es") else [])
    if stem.endswith("i") or word.endswith("ies"):
        bases.append(stem.removesuffix("e").removesuffix("i") + "y")
    if ending == "ing" and stem.endswith("y"):
        bases.append(stem[:-1] + "ie")
    if len(stem) > 2 and stem[-1] == stem[-2]:
        bases.append(stem[:-1])  # stopped
    return bases
