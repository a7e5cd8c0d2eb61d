"""Probabilities of words under a masked language model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from lit_detect.attacks.document import Document
from lit_detect.attacks.word_scores import SIDE, WordScorer, divided_gap, pieces
from lit_detect.scoring.masked_language_model import MaskedLM

#: Tokens on each side of a masked one that are seen.
_TOKENS = 20


class MaskedScorer(WordScorer):
    """Scores words by a masked language model.

    Args:
        masked: The model.
        document: The words.
        max_tokens: Tokens read of a document.
        faithful: Whether to mask only the first token of a word, in the padded window of the released code, and to stop
            after ``max_tokens``; else all tokens of a word are masked together, with the special tokens at both ends,
            and the probability is the product of theirs.
    """

    def __init__(self, masked: MaskedLM, document: Document, max_tokens: int, faithful: bool) -> None:
        self.document, self._model, self._faithful, self._max_tokens = document, masked, faithful, max_tokens
        self._encoded: dict[str, list[int]] = {"": []}
        self._side = min(_TOKENS, (masked.max_length - 4) // 2)

    def all_words(self) -> list[float | None]:
        """Return the log-probability of each word; see the base class."""
        rows = [self._encode(piece) for piece in pieces(self.document, 0, len(self.document.words))]
        ids, place, spans = [token for row in rows for token in row], 0, list[tuple[int, int]]()
        for number, row in enumerate(rows):
            if number % 2:
                spans.append((place, place + len(row)))
            place += len(row)
        if self._faithful:
            ids = ids[: self._max_tokens]
        read = [i for i, (start, end) in enumerate(spans) if start < end and start < len(ids)]
        found: list[float | None] = [None] * len(spans)
        scores = self._score([(ids, *spans[i]) for i in read])
        for i, score in zip(read, scores.tolist(), strict=True):
            found[i] = score
        return found

    def choices(self, place: int, choices: Sequence[str], following: Sequence[int]) -> np.ndarray:
        """Return the probability of each word; see the base class."""
        first, last = max(0, place - SIDE), min(len(self.document.words), place + SIDE + 1)
        gap, space = divided_gap(self.document, place)
        before = self._join([*pieces(self.document, first, place), gap])
        after = []
        for i in range(place + 1, last):
            after += [*divided_gap(self.document, i)]
            after[-1] += self.document.words[i]
        right = self._join(after)
        rows = [self._encode(space + choice) for choice in choices]
        return np.exp(self._score([(before + row + right, len(before), len(before) + len(row)) for row in rows]))

    def replaced(self, place: int) -> None:
        """Keep nothing, so that nothing is to be forgotten; see the base class."""

    def _encode(self, piece: str) -> list[int]:
        if piece not in self._encoded:
            self._encoded[piece] = self._model.encode(piece)
        return self._encoded[piece]

    def _join(self, texts: Sequence[str]) -> list[int]:
        return [token for text in texts for token in self._encode(text)]

    def _score(self, words: Sequence[tuple[list[int], int, int]]) -> np.ndarray:
        """Return the log-probability of words, each given as ids of a text, begin and end; equal windows run once."""
        windows: dict[tuple[int, ...], tuple[int, tuple[int, ...]]] = {}
        keys = []
        for ids, start, end in words:
            row, places = (self._released_window if self._faithful else self._window)(ids, start, end)
            windows.setdefault(tuple(row), (len(windows), tuple(places)))
            keys.append(windows[tuple(row)][0])
        rows = [list(row) for row in windows]
        found = self._model.log_probs(rows, [places for _, places in windows.values()]) if rows else []
        scores = []
        for (ids, start, end), key in zip(words, keys, strict=True):
            targets = torch.tensor(ids[start : start + 1 if self._faithful else end])
            scores.append(float(found[key].gather(1, targets[:, None]).double().sum()))
        return np.array(scores)

    def _window(self, ids: list[int], start: int, end: int) -> tuple[list[int], list[int]]:
        tokenizer = self._model.tokenizer
        left, right = ids[max(0, start - self._side) : start], ids[end : end + self._side]
        row = [
            tokenizer.cls_token_id,
            *left,
            *[tokenizer.mask_token_id] * (end - start),
            *right,
            tokenizer.sep_token_id,
        ]
        return row, list(range(1 + len(left), 1 + len(left) + end - start))

    def _released_window(self, ids: list[int], start: int, end: int) -> tuple[list[int], list[int]]:
        """Return 41 tokens with the masked one in their 22nd place: 21 before it and 19 behind, without the end token.

        Padding is seen like text, since the released code hides all tokens alike, which is to hide none.
        """
        tokenizer, side = self._model.tokenizer, self._side
        whole = [tokenizer.cls_token_id, *ids]
        place = start + 1
        row = whole[max(0, place - side - 1) : place + side]
        at = place - max(0, place - side - 1)
        row[at] = tokenizer.mask_token_id
        pad = tokenizer.pad_token_id
        row = [pad] * (side + 1 - at) + row
        return row + [pad] * (2 * side + 1 - len(row)), [side + 1]
