"""Unicode normalisation of texts, which replaces homoglyphs and removes invisible characters."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache
from itertools import accumulate

# Cyrillic and Greek letters with the same shape as a Latin one; they include those of RAID's homoglyph attack
_CYRILLIC = dict(zip("аеорсухіјѕһԁԛԝАВЕКМНОРСТХІЈЅҮԚԜ", "aeopcyxijshdqwABEKMHOPCTXIJSYQW", strict=True))
_GREEK = dict(zip("οΑΒΕΖΗΙΚΜΝΟΡΤΥΧ", "oABEZHIKMNOPTYX", strict=True))
_LATIN_OF = {"CYRILLIC": _CYRILLIC, "GREEK": _GREEK}
_FOLDED = str.maketrans(_CYRILLIC | _GREEK)
_ALIKE = frozenset(_CYRILLIC | _GREEK)

_WORD = re.compile(r"(?:[^\W\d_]|[\u0300-\u036f])+")
_LINE = re.compile(r"\r\n|[\r\x0b\x0c\x85\u2028]")
_BLANKS = re.compile(r"[\t\xa0\u1680\u180e\u2000-\u200a\u202f\u205f\u2800\u3000\u3164\uffa0 ]+")
_EMPTY_LINES = re.compile(r"\n(?: ?\n){2,}")
#: Format characters that are visible: Arabic and Syriac signs before numbers.
_VISIBLE = frozenset("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u08e2")
_JOINERS = frozenset("\u200c\u200d") | frozenset(map(chr, range(0xFE00, 0xFE10)))


def normalize_text(text: str) -> str:
    r"""Return a text with its Unicode normalised, so that texts that look the same are the same.

    - Compatibility forms are folded (NFKC).
    - Invisible characters are removed, except the joiners that Persian, Indic scripts and emoji need.
    - Homoglyphs of Latin letters in otherwise Latin words become Latin. A word of homoglyphs only becomes Latin if
      other words of the text mix the two scripts and no word has letters that occur only in the other script.
    - Runs of spaces become one, all line breaks ``\n``, and several empty lines one.

    Accents and words in Cyrillic or Greek are kept.

    Example:
        >>> normalize_text("A\u200b s\u0435cond \xa0 c\u0430t")
        'A second cat'
    """
    text = _LINE.sub("\n", text).replace("\u2029", "\n\n")
    if not text.isascii() or not text.isprintable():
        text = _without_invisible(_BLANKS.sub(" ", unicodedata.normalize("NFKC", text)))
        text = unicodedata.normalize("NFKC", _latin(text))
    return _EMPTY_LINES.sub("\n\n", _BLANKS.sub(" ", text))


def spans_before(text: str, normalized: str, spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return where parts of a normalised text stand in the text as it was found.

    Normalisation may decompose, compose and exchange letters, but neither adds nor removes any, so they are counted.

    Args:
        text: The text as it was found.
        normalized: What `normalize_text` makes of it.
        spans: Start and end of each part in the normalised text. One of joiners alone, which are no letters, stands
            between the letters before and after it.
    """
    places = [place for place, character in enumerate(text) for _ in range(_letters(character))]
    seen = [0, *accumulate(map(_letters, normalized))]
    after = [0, *(place + 1 for place in places)]  # the end of the letter before each, and of the last one
    before = [*places, len(text)]
    letters = [(seen[start], seen[end]) for start, end in spans]
    return [(before[first], after[last]) if first < last else (after[first], before[first]) for first, last in letters]


@cache
def _letters(character: str) -> int:
    """Return how many visible characters a character is made of."""
    parts = _BLANKS.sub("", unicodedata.normalize("NFKD", character))
    return sum(not (part.isspace() or part in _JOINERS or _is_invisible(part)) for part in parts)


class NormalizeText:
    """Transform that normalises the Unicode of texts; see `normalize_text`."""

    def __call__(self, text: str) -> str:
        """Return the normalised text."""
        return normalize_text(text)


def _without_invisible(text: str) -> str:
    if not any(character in _JOINERS or _is_invisible(character) for character in set(text)):
        return text
    visible: list[str] = []
    needs_joiners = False  # whether the last character other than marks is an emoji, or of a script that uses joiners
    for character in text:
        if not needs_joiners if character in _JOINERS else _is_invisible(character):
            continue
        visible.append(character)
        if character not in _JOINERS and unicodedata.category(character)[0] != "M":
            needs_joiners = _needs_joiners(character)
    return "".join(visible)


@cache
def _needs_joiners(character: str) -> bool:
    number = ord(character)  # from 0x1E00 are further Latin and Greek letters
    return number >= 0x600 and not 0x1E00 <= number < 0x2000 and unicodedata.category(character)[0] in "LS"


@cache
def _is_invisible(character: str) -> bool:
    category = unicodedata.category(character)
    if category == "Cc":
        return character not in "\n\t"
    filler = character in "\u034f\u115f\u1160" or 0xE0100 <= ord(character) <= 0xE01EF
    return filler or (category == "Cf" and character not in _VISIBLE)


def _latin(text: str) -> str:
    """Return a text in which the homoglyphs in Latin words are replaced by Latin letters."""
    if _ALIKE.isdisjoint(text):
        return text
    words = [(word, _scripts(word.group())) for word in _WORD.finditer(text)]
    mixed = {script for _, scripts in words if "LATIN" in scripts for script in scripts}
    real = {script.removeprefix("REAL ") for _, scripts in words for script in scripts if script.startswith("REAL ")}
    parts, end = [], 0
    for word, scripts in words:
        alike = scripts & _LATIN_OF.keys()
        if alike and scripts <= {"LATIN", *_LATIN_OF} and ("LATIN" in scripts or alike <= mixed - real):
            parts += [text[end : word.start()], word.group().translate(_FOLDED)]
            end = word.end()
    return "".join([*parts, text[end:]])


def _scripts(word: str) -> frozenset[str]:
    if word.isascii():
        return frozenset({"LATIN"})
    return frozenset(filter(None, map(_script, word)))


@cache
def _script(character: str) -> str:
    """Return the script of a letter, with the prefix ``REAL`` unless it is a homoglyph; empty for a mark."""
    if unicodedata.combining(character):
        return ""
    script = unicodedata.name(character, "OTHER").partition(" ")[0]
    alike = character in _LATIN_OF.get(script, {})
    return script if alike or script == "LATIN" else f"REAL {script}"
