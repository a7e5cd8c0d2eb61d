"""GRUEN, a reference-free score of text quality: grammaticality, redundancy, focus, and the parts of long texts.

Zhu and Bhat 2020, GRUEN for evaluating linguistic quality of generated text, arXiv 2010.02498. Long texts are scored in
parts as in the released code of Pu et al. 2023, since most of them would score 0 otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from itertools import pairwise

import numpy as np

#: Penalty of a redundancy and of a lack of focus.
_PENALTY = 0.1
#: Sentences per part of a long text (about 120 words); most parts of texts of up to 512 words, and of longer texts.
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
    """Return the penalty for sentences that repeat each other: -0.1 for each flag of each pair; see `repeats`."""
    flags = sum(repeats(a, b) for i, a in enumerate(sentences) for b in sentences[i + 1 :])
    return -_PENALTY * flags


def repeats(a: str, b: str) -> int:
    """Return the number of flags, 0 to 4, by which two sentences repeat each other.

    If one sentence contains the other, all four flags are set. Otherwise, if the longer sentence has fewer than five
    words, none is set. Else the flags are:

    1. The longest common substring has more than 0.8 of the characters of the shorter sentence.
    2. It has more than 0.8 of the words of the shorter sentence.
    3. The edit distance is below 0.6 of the characters of the longer sentence.
    4. More words of ``a`` occur in ``b`` than 0.8 times the number of words of the shorter sentence.
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
    """Return the Levenshtein distance of two texts, in characters."""
    codes = np.array([ord(character) for character in b], dtype=np.int64)
    row = np.arange(len(b) + 1)
    for length, character in enumerate(a, 1):
        changed = np.minimum(row[:-1] + (codes != ord(character)), row[1:] + 1)
        row = np.concatenate(([length], changed))
        # insertions: the minimum over all entries to the left of their value plus their distance
        row = np.minimum.accumulate(row - np.arange(len(row))) + np.arange(len(row))
    return int(row[-1])


def word_mover_similarity(a: Sequence[str], b: Sequence[str], cosine: Callable[[str, str], float]) -> float:
    """Return 1 minus the word mover's distance of two sentences (Kusner et al. 2015).

    Moving a word to another costs 1 - cosine, so the similarity does not depend on the lengths of the vectors.

    Args:
        a: Words of the first sentence that have vectors, one or more, with repetitions.
        b: Words of the second sentence.
        cosine: Cosine of the vectors of two words.
    """
    from scipy.optimize import linprog  # type: ignore[import-untyped]

    (first, first_counts), (second, second_counts) = (np.unique(words, return_counts=True) for words in (a, b))
    cost = np.array([[1 - cosine(str(x), str(y)) for y in second] for x in first])
    n, m = cost.shape
    rows, columns = np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))
    masses = np.concatenate([first_counts / len(a), second_counts / len(b)])
    # the last equation follows from the others
    solution = linprog(cost.ravel(), A_eq=np.concatenate([rows, columns])[:-1], b_eq=masses[:-1], method="highs")
    return 1 - float(solution.fun)


def focus(similarities: Sequence[float]) -> float:
    """Return the penalty for a lack of focus: -0.1 if two neighbouring sentences have a similarity below 0.05, else 0.

    Args:
        similarities: Similarity of each pair of neighbouring sentences.
    """
    return -_PENALTY if any(value < _FOCUS for value in similarities) else 0.0


def gruen(grammar: float, redundant: float, unfocused: float) -> float:
    """Return the GRUEN score of a text, from 0 to 1: the sum of its grammaticality and its penalties."""
    return min(1.0, max(0.0, grammar + redundant + unfocused))


def parts_of(sentences: Sequence[str]) -> list[list[str]]:
    """Divide the sentences of a text into parts that are scored separately; the text's score is the mean of theirs.

    A last sentence without an end mark is left out, unless it is the only one. The number of parts is the number of
    sentences divided by six, rounded up. It is at most four for texts of up to 512 words, and at most seven for longer
    ones. The numbers of sentences of the parts differ by at most one.

    Args:
        sentences: The sentences, one or more.

    Returns:
        The sentences of each part.
    """
    whole = list(sentences)
    if len(whole) > 1 and not whole[-1].rstrip("\"'”’)] ").endswith((".", "!", "?", "…")):
        whole.pop()
    words = sum(len(sentence.split()) for sentence in whole)
    count = min(-(-len(whole) // _SENTENCES), _PARTS if words <= _SHORT_WORDS else _PARTS_OF_LONG)
    ends = [round(len(whole) * part / count) for part in range(count + 1)]
    return [whole[start:end] for start, end in pairwise(ends)]
