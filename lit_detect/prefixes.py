"""Beginnings of texts, cut to a grid of lengths, on which a calibration measures what human texts score."""

from __future__ import annotations

import math
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch

from lit_detect.functional.threshold import check_scores
from lit_detect.human_scores import Group, Length

#: A word, or a part of a very long one.
_WORD = re.compile(r"\S{1,16}")
#: Each length is this times the one before.
RATIO = math.sqrt(2)


@dataclass(frozen=True)
class Beginnings:
    """Texts, cut to each length that enough of them have.

    Args:
        cut: Beginnings by rising length in tokens.
        whole: The texts that have at least as many tokens as the last length.
        longest: Number of tokens of the longest text.
    """

    cut: dict[int, list[str]]
    whole: list[str]
    longest: int

    @classmethod
    def of(
        cls, texts: Sequence[str], shortest: int, needed: int, count: Callable[[Sequence[str]], Sequence[int]]
    ) -> Beginnings:
        """Cut texts.

        Args:
            texts: The texts; `needed` or more have at least the shortest length.
            shortest: Shortest length in tokens, 1 or more.
            needed: How many texts must have a length.
            count: Returns the number of tokens of each of several texts.
        """
        tokens = count(texts)
        lengths = length_grid(shortest, sorted(tokens, reverse=True)[needed - 1])
        beginnings = cut_to_lengths(texts, tokens, lengths, count)
        cut = {length: [own[length] for own in beginnings if length in own] for length in lengths}
        whole = [text for text, number in zip(texts, tokens, strict=True) if number >= lengths[-1]]
        return cls(cut, whole, max(tokens))

    def __iter__(self) -> Iterator[str]:
        """Yield all beginnings and whole texts."""
        for texts in (*self.cut.values(), self.whole):
            yield from texts

    def group(self, score: Mapping[str, float], name: str = "scores of human texts") -> Group:
        """Return the scores of these texts, by length.

        Args:
            score: The score of each.
            name: Name of the scores, for messages.

        Raises:
            UserError: If a score is not a finite number, or all are the same.
        """
        check_scores(torch.tensor([score[text] for text in self], dtype=torch.float64), name)
        *cut, whole = (tuple(sorted(score[text] for text in texts)) for texts in (*self.cut.values(), self.whole))
        return Group(tuple(map(Length, self.cut, cut)), Length(self.longest, whole))


def length_grid(shortest: int, longest: int) -> list[int]:
    """Return the lengths from the shortest to the longest, each 1.41 times the one before, or less for the last.

    Args:
        shortest: The first length, in tokens, 1 or more.
        longest: The last length, which is not below it.

    Example:
        >>> length_grid(50, 300)
        [50, 71, 100, 141, 200, 283, 300]
    """
    steps = math.floor(math.log(longest / shortest, RATIO))
    return sorted({*(min(longest, round(shortest * RATIO**step)) for step in range(steps + 1)), longest})


def cut_to_lengths(
    texts: Sequence[str], tokens: Sequence[int], lengths: Sequence[int], count: Callable[[Sequence[str]], Sequence[int]]
) -> list[dict[int, str]]:
    """Return the shortest beginning of each text, up to the end of a word, that has so many tokens, by length.

    Args:
        texts: The texts.
        tokens: Number of tokens of each.
        lengths: The lengths, in tokens; a text has none that exceeds its own.
        count: Returns the number of tokens of each of several texts; those of words are scaled so that their sum is
            that of the text.
    """
    ends = [[match.end() for match in _WORD.finditer(text)] for text in texts]
    pieces = [[text[i:j] for i, j in pairwise([0, *own])] for text, own in zip(texts, ends, strict=True)]
    different = list(dict.fromkeys(piece for own in pieces for piece in own))
    known = dict(zip(different, count(different), strict=True))
    beginnings = []
    for text, total, end, own in zip(texts, tokens, ends, pieces, strict=True):
        reached = list(accumulate(known[piece] for piece in own))
        scale = reached[-1] / total if total and reached else 0.0
        last = {length: bisect_left(reached, length * scale - 1e-9) for length in lengths if length <= total}
        beginnings.append({length: text[: end[at]] for length, at in last.items()})
    return beginnings
