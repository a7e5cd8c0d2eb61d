"""Probabilities of words in a text under a masked language model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from lit_detect.attacks.editable_text import EditableText
from lit_detect.attacks.word_scores import SIDE, WordScorer, divided_gap, pieces
from lit_detect.scoring.masked_language_model import MaskedLM

#: Tokens of context on each side of the masked ones.
_TOKENS = 20


class MaskedScorer(WordScorer):
    """Scores words by a masked language model.

    Args:
        masked: The model.
        document: The words.
        max_tokens: Most tokens of a text that are read if ``faithful``.
        faithful: True follows the released code: only the first token of a word is masked, in the code's padded window,
            and the rest of a text after ``max_tokens`` is not read. False masks all tokens of a word together, with the
            special tokens at both ends of the window; the word's probability is the product of theirs.
    """

    def __init__(self, masked: MaskedLM, document: EditableText, max_tokens: int, faithful: bool) -> None:
        self.document, self._model, self._faithful, self._max_tokens = document, masked, faithful, max_tokens
        self._encoded: dict[str, list[int]] = {"": []}
        self._side = min(_TOKENS, (masked.max_length - 4) // 2)

    def all_words(self) -> list[float | None]:
        """Return the log-probability of each word; see the base class."""
        rows = [self._encode(piece) for piece in pieces(self.document, 0, len(self.document.words))]
        ids, offset, spans = [token for row in rows for token in row], 0, list[tuple[int, int]]()
        for i, row in enumerate(rows):
            if i % 2:
                spans.append((offset, offset + len(row)))
            offset += len(row)
        if self._faithful:
            ids = ids[: self._max_tokens]
        read = [i for i, (start, end) in enumerate(spans) if start < end and start < len(ids)]
        word_scores: list[float | None] = [None] * len(spans)
        scores = self._score([(ids, *spans[i]) for i in read])
        for i, score in zip(read, scores.tolist(), strict=True):
            word_scores[i] = score
        return word_scores

    def choices(self, index: int, choices: Sequence[str], following: Sequence[int]) -> np.ndarray:
        """Return the probability of each word; see the base class."""
        first, last = max(0, index - SIDE), min(len(self.document.words), index + SIDE + 1)
        gap, space = divided_gap(self.document, index)
        before = self._join([*pieces(self.document, first, index), gap])
        after = []
        for i in range(index + 1, last):
            after += [*divided_gap(self.document, i)]
            after[-1] += self.document.words[i]
        right = self._join(after)
        rows = [self._encode(space + choice) for choice in choices]
        return np.exp(self._score([(before + row + right, len(before), len(before) + len(row)) for row in rows]))

    def replaced(self, index: int) -> None:
        """Has no state to reset; see the base class."""

    def _encode(self, piece: str) -> list[int]:
        if piece not in self._encoded:
            self._encoded[piece] = self._model.encode(piece)
        return self._encoded[piece]

    def _join(self, texts: Sequence[str]) -> list[int]:
        return [token for text in texts for token in self._encode(text)]

    def _score(self, words: Sequence[tuple[list[int], int, int]]) -> np.ndarray:
        """Return the log-probability of words, float64 of shape ``(words,)``; equal windows run once.

        Args:
            words: Token ids of a text, and start and end of the word among them, for each word.
        """
        windows: dict[tuple[int, ...], tuple[int, tuple[int, ...]]] = {}
        keys = []
        for ids, start, end in words:
            row, masked = (self._released_window if self._faithful else self._window)(ids, start, end)
            windows.setdefault(tuple(row), (len(windows), tuple(masked)))
            keys.append(windows[tuple(row)][0])
        rows = [list(row) for row in windows]
        log_probs = self._model.log_probs(rows, [masked for _, masked in windows.values()]) if rows else []
        scores = []
        for (ids, start, end), key in zip(words, keys, strict=True):
            targets = torch.tensor(ids[start : start + 1 if self._faithful else end])
            scores.append(float(log_probs[key].gather(1, targets[:, None]).double().sum()))
        return np.array(scores)

    def _window(self, ids: list[int], start: int, end: int) -> tuple[list[int], list[int]]:
        """Return the ids of a window in which the tokens ``start`` to ``end`` - 1 are masked, and their positions."""
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
        """Return the released code's window of 41 tokens with one mask, and the mask's position.

        The mask has position 21, with 21 tokens before it and 19 after it, and there is no end token. The model attends
        to the padding, since the attention mask of the released code is the same for all tokens.
        """
        tokenizer, side = self._model.tokenizer, self._side
        whole = [tokenizer.cls_token_id, *ids]
        position = start + 1
        first = max(0, position - side - 1)
        row = whole[first : position + side]
        row[position - first] = tokenizer.mask_token_id
        pad = tokenizer.pad_token_id
        row = [pad] * (side + 1 - (position - first)) + row
        return row + [pad] * (2 * side + 1 - len(row)), [side + 1]
