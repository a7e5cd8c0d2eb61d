"""How expected each word of a text was under the language model of its detector, as GLTR shows it."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from lit_core.lm.language_model import LanguageModel
from lit_detect.detectors import Detector
from lit_detect.detectors.language_model import LanguageModelDetector
from lit_detect.functional.ranks import RANK_EDGES
from lit_detect.judging import Through, Window
from lit_detect.language.normalize import normalize_text, spans_before
from lit_detect.scoring.causal import score_tokens

#: Letters of scripts without blanks between words, each of which counts as a word.
_SINGLE = "\u2e80-\ua4cf\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[^\s{_SINGLE}]+|[{_SINGLE}][\u200c\u200d\ufe00-\ufe0f]*")
_BLANKS = re.compile(r"\s+")


@dataclass(frozen=True)
class Word:
    """A word of a text.

    Args:
        start: Offset of its first character.
        end: Offset after its last character.
        bin: How expected it was: 0 for each of its tokens among the 10 likeliest given what comes before, 1 among 100,
            2 among 1,000, 3 beyond; None where no language model read it.
    """

    start: int
    end: int
    bin: int | None


def words_of(detector: Detector, text: str, windows: Sequence[Window], through: Through = iter) -> list[Word]:
    """Return the words of a text in their order.

    A word in several windows is taken from the first of them, in which most of the text comes before it.

    Args:
        detector: The detector. If it has no causal language model, no word has a bin.
        text: The text as it was found.
        windows: What the detector read at once.
        through: Goes through the windows.
    """
    ranks = [0] * len(text)
    model = causal_model(detector)
    if model is not None:
        done = 0
        for (part,), window in zip(through([[text[one.start : one.end]] for one in windows]), windows, strict=True):
            found = _ranks(detector, *model, part)
            ranks[max(done, window.start) : window.end] = found[max(done - window.start, 0) :]
            done = max(done, window.end)
    places = [match.span() for match in _WORD.finditer(text)]
    return [Word(start, end, _bin(max(ranks[start:end]))) for start, end in places]


def causal_model(detector: Detector) -> tuple[LanguageModel, int] | None:
    """Return the causal language model that a detector asks first, and how many tokens it reads; None without one."""
    for part in detector.modules():
        if isinstance(part, LanguageModelDetector) and isinstance(part.language_models[0], LanguageModel):
            return part.language_models[0], part.max_tokens
    return None


def _ranks(detector: Detector, lm: LanguageModel, max_tokens: int, found: str) -> list[int]:
    """Return the rank of the token of each character of a window; 0 for blanks and what was not read."""
    read = normalize_text(found) if detector.normalizes else found
    line = _BLANKS.sub(" ", read).strip()  # line breaks are layout
    (scored,) = score_tokens(lm, [line], max_tokens, ("rank",))
    in_line = [0] * len(line)
    for (start, end), rank in zip(lm.tokenizer.spans(line), scored["rank"].tolist(), strict=False):
        in_line[start:end] = [max(rank, other) for other in in_line[start:end]]
    seen = (rank for rank, character in zip(in_line, line, strict=True) if not character.isspace())
    in_read = [0 if character.isspace() else next(seen) for character in read]
    if read == found:
        return in_read
    in_found, words = [0] * len(found), [match.span() for match in _WORD.finditer(read)]
    for (start, end), word in zip(spans_before(found, read, words), words, strict=True):
        in_found[start:end] = [max(in_read[slice(*word)])] * (end - start)
    return in_found


def _bin(rank: int) -> int | None:
    return bisect_left(RANK_EDGES, rank) if rank else None
