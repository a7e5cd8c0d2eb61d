"""GRUEN, the quality of a text without a reference: grammaticality, redundancy, focus, and the rule for long texts.

After Zhu and Bhat 2020, GRUEN for evaluating linguistic quality of generated text, arXiv 2010.02498; the rule for long
texts after the released code of Pu et al. 2023, in which the score of most long texts would be 0 otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from itertools import pairwise

import numpy as np

#: Penalty of a redundancy and of a lack of focus.
_PENALTY = 0.1
#: Sentences of a part of a long text, about 120 words, and most parts of texts up to 512 words and of longer ones.
_SENTENCES, _PARTS, _SHORT_WORDS, _PARTS_OF_LONG = 6, 4, 512, 7
#: Similarity of neighbouring sentences below which a text lacks focus.
_FOCUS = 0.05


def grammaticality(losses: Sequence[float], logits: Sequence[float]) -> float:
    """Return the grammaticality of a text from its sentences.

    Args:
        losses: Mean negative log-likelihood of the tokens of each sentence under a masked language model that sees
            them, in nats.
        logits: Logit of each sentence that it is acceptable, of a classifier trained on CoLA.

    Returns:
        ``(exp(-mean(exp(loss)) / 2) + mean(logit)) / 8 + 0.5``, 0 or more.
    """
    perplexity = float(np.mean(np.exp(np.minimum(losses, 700.0))))
    return max(0.0, (math.exp(-0.5 * perplexity) + float(np.mean(logits))) / 8 + 0.5)


def redundancy(sentences: Sequence[str]) -> float:
    """Return the penalty of sentences that repeat each other: -0.1 for each flag of each pair; see `repeats`."""
    flags = sum(repeats(a, b) for place, a in enumerate(sentences) for b in sentences[place + 1 :])
    return -_PENALTY * flags


def repeats(a: str, b: str) -> int:
    """Return how many of four flags say that two sentences repeat each other.

    Equal sentences, or one within the other, have all four. Otherwise, where the longer one has five words or more: the
    longest common substring has over 0.8 of the characters of the shorter sentence; over 0.8 of its words; the edit
    distance is below 0.6 of the characters of the longer one; over 0.8 of the shorter one's number of words are words
    of the first that the second has too.
    """
    a, b = a.strip(), b.strip()
    if a in b or b in a:
        return 4
    first, second = a.split(), b.split()
    if max(len(first), len(second)) < 5:
        return 0
    shorter = min(len(first), len(second))
    match = SequenceMatcher(None, a, b).find_longest_match(0, len(a), 0, len(b))
    common = a[match.a : match.a + match.size]
    there = set(second)
    return sum(
        (
            match.size > 0.8 * min(len(a), len(b)),
            len(common.split()) > 0.8 * shorter,
            edit_distance(a, b) < 0.6 * max(len(a), len(b)),
            sum(word in there for word in first) > 0.8 * shorter,
        )
    )


def edit_distance(a: str, b: str) -> int:
    """Return how many characters are inserted, deleted or replaced between two texts at least (Levenshtein)."""
    codes = np.array([ord(sign) for sign in b], dtype=np.int64)
    row = np.arange(len(b) + 1)
    for place, sign in enumerate(a, 1):
        changed = np.minimum(row[:-1] + (codes != ord(sign)), row[1:] + 1)
        row = np.concatenate(([place], changed))
        # insertions: the least over all starts to the left, of their value and the way from there
        row = np.minimum.accumulate(row - np.arange(len(row))) + np.arange(len(row))
    return int(row[-1])


def word_mover_similarity(a: Sequence[str], b: Sequence[str], cosine: Callable[[str, str], float]) -> float:
    """Return 1 minus the least cost of moving the words of a sentence to those of another (Kusner et al. 2015).

    A word costs 1 - cosine, so the similarity does not depend on the lengths of the vectors.

    Args:
        a: Words of a sentence that have vectors, one or more, each as often as it occurs.
        b: Words of the other.
        cosine: Cosine of the vectors of two words.
    """
    from scipy.optimize import linprog  # type: ignore[import-untyped]

    (first, first_counts), (second, second_counts) = (np.unique(words, return_counts=True) for words in (a, b))
    cost = np.array([[1 - cosine(str(x), str(y)) for y in second] for x in first])
    n, m = cost.shape
    rows, columns = np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))
    masses = np.concatenate([first_counts / len(a), second_counts / len(b)])
    # the last equation follows from the others
    found = linprog(cost.ravel(), A_eq=np.concatenate([rows, columns])[:-1], b_eq=masses[:-1], method="highs")
    return 1 - float(found.fun)


def focus(similarities: Sequence[float]) -> float:
    """Return the penalty of a text one of whose pairs of neighbouring sentences has a similarity below 0.05."""
    return -_PENALTY if any(value < _FOCUS for value in similarities) else 0.0


def gruen(grammar: float, redundant: float, unfocused: float) -> float:
    """Return the score of a text, 0 to 1, from its grammaticality and its penalties."""
    return min(1.0, max(0.0, grammar + redundant + unfocused))


def parts_of(sentences: Sequence[str]) -> list[list[str]]:
    """Divide the sentences of a long text into parts that are scored one by one; the text has the mean of their scores.

    A last sentence without an end is left out, unless it is the only one. Up to 512 words the text has a part for each
    begun six sentences, about 120 words, four at most; a longer one seven at most. The parts differ by one sentence at
    most, and no sentence is lost.

    Args:
        sentences: The sentences, one or more.
    """
    kept = list(sentences)
    if len(kept) > 1 and not kept[-1].rstrip("\"'”’)] ").endswith((".", "!", "?", "…")):
        kept.pop()
    words = sum(len(sentence.split()) for sentence in kept)
    count = min(-(-len(kept) // _SENTENCES), _PARTS if words <= _SHORT_WORDS else _PARTS_OF_LONG)
    ends = [round(len(kept) * part / count) for part in range(count + 1)]
    return [kept[start:end] for start, end in pairwise(ends)]
