"""What human texts score, by length: among them a text that is judged has its place."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple


class Standing(NamedTuple):
    """How a text stands among human texts.

    Args:
        above: Number of human texts that score as high or higher.
        n: Number of human texts.
    """

    above: int
    n: int

    @property
    def p_value(self) -> float:
        """Largest probability, in expectation, with which a human text like these scores as high."""
        return (1 + self.above) / (1 + self.n)


@dataclass(frozen=True)
class Length:
    """What human texts of a length score.

    Args:
        tokens: Number of tokens to which they were cut; of whole texts, the largest one.
        scores: Their scores, rising.
    """

    tokens: int
    scores: tuple[float, ...]

    def standing(self, score: float) -> Standing:
        """Return the place of a score among these."""
        return Standing(len(self.scores) - bisect_left(self.scores, score), len(self.scores))


@dataclass(frozen=True)
class Group:
    """What the human texts of a group score.

    Args:
        lengths: Scores of their beginnings, by rising length.
        whole: Scores of the whole texts that have at least as many tokens as the last of these.
    """

    lengths: tuple[Length, ...]
    whole: Length

    def near(self, tokens: int) -> tuple[Length, ...]:
        """Return the human scores with which a text of so many tokens is compared; none where nothing was measured."""
        after = bisect_right(self.lengths, tokens, key=attrgetter("tokens"))
        if not after or tokens > self.whole.tokens:
            return ()
        before = self.lengths[after - 1]
        if before.tokens == tokens and after < len(self.lengths):
            return (before,)
        return before, self.lengths[after] if after < len(self.lengths) else self.whole
