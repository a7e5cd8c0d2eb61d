"""Cuts a document into overlapping windows, each of which a detector reads whole."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lit_detect.detectors import Detector

#: Counts of words, each with the blanks before it, add up to the count of their text for the usual tokenizers.
_WORD = re.compile(r"\S+")
#: Share of a window from which a word is cut by characters, so that windows can overlap inside it.
_LONG_WORD = 0.5
_ROUNDING = 1e-9
_JOINERS = "\u200c\u200d"
#: Characters after which the rest of a letter with its marks is taken apart.
_LONGEST_LETTER = 64


class Span(NamedTuple):
    """A part of a text.

    Args:
        start: Offset of its first character.
        end: Offset after its last character.
    """

    start: int
    end: int


class _Piece(NamedTuple):
    start: int
    begin: int  # after the blanks
    end: int
    whole: float  # share of a window that it fills
    bare: float  # the same without the blanks before it


def cut(detector: Detector, text: str, window_tokens: int | None = None) -> list[Span]:
    """Return the windows of a text: one if the detector reads the text whole, or as many as cover it.

    Windows start and end at words, and each overlaps the one before by about half. Each holds as many words as the
    detector reads at once, the last one too, which ends with the last word of the text. A word that fills a large part
    of a window, such as a text without spaces, is cut between characters. No window consists of blanks.

    Args:
        detector: The detector.
        text: The text.
        window_tokens: Most tokens of a window; None takes as many as the detector reads at once.
    """
    if detector.fill([text], window_tokens)[0] <= 1:
        return [Span(0, len(text))]
    pieces = _pieces(detector, text, window_tokens)
    if not pieces:
        return [Span(0, len(text))]
    windows, first, count = [], 0, len(pieces)
    while (end := _end(pieces, first)) < count:
        windows.append((first, end))
        first = _half_way(pieces, first, end)
    windows.append((_last_start(pieces), count))
    return [Span(pieces[first].begin, pieces[end - 1].end) for first, end in windows]


def _end(pieces: Sequence[_Piece], first: int) -> int:
    """Return the piece after the last one of the window that starts with a piece."""
    filled, end = pieces[first].bare, first + 1
    while end < len(pieces) and filled + pieces[end].whole <= 1 + _ROUNDING:
        filled += pieces[end].whole
        end += 1
    return end


def _half_way(pieces: Sequence[_Piece], first: int, end: int) -> int:
    """Return the piece with which the next window starts."""
    half = sum(piece.whole for piece in pieces[first:end]) / 2
    filled, start = pieces[first].whole, first + 1
    while start < end and filled + pieces[start].whole <= half + _ROUNDING:
        filled += pieces[start].whole
        start += 1
    return start


def _last_start(pieces: Sequence[_Piece]) -> int:
    """Return the piece with which the full window starts that ends with the last piece."""
    filled, start = 0.0, len(pieces) - 1
    while start > 0 and filled + pieces[start].whole + pieces[start - 1].bare <= 1 + _ROUNDING:
        filled += pieces[start].whole
        start -= 1
    return start


def _pieces(detector: Detector, text: str, window_tokens: int | None) -> list[_Piece]:
    ends = [match.end() for match in _WORD.finditer(text)]
    spans = list(map(Span, [0, *ends], ends))
    pieces = _measured(detector, text, spans, window_tokens)
    while any(_is_long(piece) for piece in pieces):
        spans = [part for piece in pieces for part in _parts(text, piece)]
        if len(spans) == len(pieces):
            break
        pieces = _measured(detector, text, spans, window_tokens)
    return pieces


def _measured(detector: Detector, text: str, spans: Sequence[Span], window_tokens: int | None) -> list[_Piece]:
    wholes = [text[start:end] for start, end in spans]
    bares = [whole.lstrip() for whole in wholes]
    different = list(dict.fromkeys([*wholes, *bares]))
    filled = dict(zip(different, detector.fill(different, window_tokens), strict=True))
    return [
        _Piece(start, end - len(bare), end, filled[whole], filled[bare])
        for (start, end), whole, bare in zip(spans, wholes, bares, strict=True)
    ]


def _is_long(piece: _Piece) -> bool:
    return piece.bare > _LONG_WORD and piece.end - piece.begin > 1


def _parts(text: str, piece: _Piece) -> Iterator[Span]:
    """Yield a piece, or the parts of a long word, cut where no mark or joiner stands."""
    start, length = piece.start, piece.end - piece.begin
    parts = min(length, 1 + int(piece.bare / _LONG_WORD)) if _is_long(piece) else 1
    planned = [piece.begin + length * number // parts for number in range(1, parts)]
    places = [place for place in dict.fromkeys(_letter_start(text, one) for one in planned) if place < piece.end]
    for place in places or (planned if piece.bare > 1 else []):
        yield Span(start, place)
        start = place
    yield Span(start, piece.end)


def _letter_start(text: str, planned: int) -> int:
    """Return the first place from a planned one on where a letter with its marks starts."""
    for place in range(planned, min(planned + _LONGEST_LETTER, len(text))):
        if not _is_bound(text[place - 1], text[place]):
            return place
    return len(text) if planned + _LONGEST_LETTER > len(text) else planned


def _is_bound(before: str, after: str) -> bool:
    """Return whether a character belongs to the one before it, as a combining mark does."""
    return before in _JOINERS or after in _JOINERS or unicodedata.category(after)[0] == "M"
