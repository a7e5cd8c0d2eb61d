"""Effect and cost of an attack: evasion rate, number of changed words, perplexity."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import torch
from torch import Tensor

from lit_detect.records import Edit

_WORD = re.compile(r"\S+")


def evasion(before: Tensor, after: Tensor, threshold: float) -> dict[str, float]:
    """Return the evasion rate of an attack on machine texts, and the recall before and after it.

    Pu et al. 2023 define the evasion rate over the texts that are detected before the attack. Their released code,
    which only reads such texts, calls it flip rate.

    Args:
        before: Scores of the original texts, ``(n,)``.
        after: Scores of the attacked texts, ``(n,)``.
        threshold: Smallest score that counts as machine.

    Returns:
        ``evasion``, the share of the texts detected before that are not detected after; ``recall_before`` and
        ``recall_after``, shares of all texts; ``detected``, the number of texts detected before. A share of no texts is
        NaN.
    """
    first, second = before >= threshold, after >= threshold
    detected = int(first.sum())
    rates = [float(hits.double().mean()) if len(hits) else math.nan for hits in (first, second)]
    escaped = int((first & ~second).sum()) / detected if detected else math.nan
    return {"evasion": escaped, "recall_before": rates[0], "recall_after": rates[1], "detected": float(detected)}


def words_changed(text: str, edits: Sequence[Edit]) -> int:
    """Return the number of words of a text that edits change; words are separated by white space.

    An insertion changes the word that it is inside or next to. An insertion between white space changes no word.

    Args:
        text: The original text.
        edits: The edits, sorted by offset and without overlap.

    Example:
        >>> words_changed("a cat sat", [Edit(2, 5, "cat", "dog"), Edit(7, 7, "", "x")])
        2
    """
    words = [match.span() for match in _WORD.finditer(text)]
    changed: set[int] = set()
    first = 0
    for edit in edits:
        while first < len(words) and words[first][1] < edit.start:
            first += 1
        index = first
        while index < len(words) and words[index][0] <= edit.end:
            start, end = words[index]
            if edit.start == edit.end or (start < edit.end and edit.start < end):
                changed.add(index)
            index += 1
    return len(changed)


def perplexity(log_probabilities: Sequence[Tensor]) -> Tensor:
    """Return the perplexity of texts under a language model.

    Args:
        log_probabilities: Natural logarithms of the probability of each token of each text, ``(tokens,)``.

    Returns:
        exp of the mean negative log-probability, float64 of shape ``(texts,)``; NaN for a text without tokens.
    """
    means = [
        -tokens.double().mean() if len(tokens) else torch.tensor(math.nan).double() for tokens in log_probabilities
    ]
    return torch.stack(means).exp() if means else torch.zeros(0, dtype=torch.float64)
