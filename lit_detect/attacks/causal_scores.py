"""Probabilities of words in a text under a causal language model.

The distribution before a word gives the probability of every word that may replace it. One forward pass per word index
is therefore enough, and several indices share a batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lit_core.lightning.evaluation_mode import evaluating
from lit_core.lm.language_model import LanguageModel
from lit_detect.attacks.editable_text import EditableText
from lit_detect.attacks.word_scores import SIDE, WordScorer, divided_gap, pieces

#: Word indices whose distributions are computed in one batch. A replaced word invalidates those of the words near it,
#: so more would often be computed in vain.
_INDICES = 8
#: Rows of logits that are in memory at once.
_ROWS = 128


class CausalScorer(WordScorer):
    """Scores words by a causal language model. The end-of-text token precedes every text.

    Args:
        language_model: The model.
        document: The words.
        max_tokens: Most tokens of a text that the model reads at once.
        faithful: True follows the released code: a word's probability is that of its first token, rounded to five
            digits, and only the first ``max_tokens`` of a text are read. False takes the probability of the whole word
            and reads longer texts in windows that overlap by half.
    """

    def __init__(self, language_model: LanguageModel, document: EditableText, max_tokens: int, faithful: bool) -> None:
        self.document, self._model, self._faithful = document, language_model, faithful
        room = language_model.max_length
        self._limit = max_tokens if room is None else min(max_tokens, room - 1)
        self._encoded: dict[str, list[int]] = {"": []}
        self._before: dict[int, Tensor] = {}

    def all_words(self) -> list[float | None]:
        """Return the log-probability of each word; see the base class."""
        rows = [self._encode(piece) for piece in pieces(self.document, 0, len(self.document.words))]
        log_probs = self._token_log_probs([token for row in rows for token in row])
        word_scores, offset = list[float | None](), 0
        for i, row in enumerate(rows):
            if i % 2:
                tokens = log_probs[offset : offset + (1 if self._faithful else len(row))]
                word_scores.append(self._rounded(float(tokens.sum())) if len(tokens) else None)
            offset += len(row)
        return word_scores

    def _rounded(self, log_prob: float) -> float:
        """Return the logarithm of a probability rounded to five digits if ``faithful``, else the log-probability."""
        if not self._faithful:
            return log_prob
        probability = round(float(np.exp(log_prob)), 5)
        return float(np.log(probability)) if probability else -np.inf

    def _encode(self, piece: str) -> list[int]:
        if piece not in self._encoded:
            self._encoded[piece] = self._model.tokenizer.encode(piece)
        return self._encoded[piece]

    @torch.no_grad()
    def _token_log_probs(self, ids: list[int]) -> np.ndarray:
        """Return the log-probability of each token that is read, float64 of shape ``(tokens,)``."""
        end, log_probs, start = self._model.tokenizer.end_of_text, np.zeros(0), 0
        while start < len(ids) and not (self._faithful and start):
            begin = max(0, start - self._limit // 2) if start else 0
            stop = min(len(ids), begin + self._limit)
            row = torch.tensor([[end, *ids[begin:stop]]], device=self._model.device)
            with evaluating(self._model.module):
                hidden = self._model.hidden(row[:, :-1])[0]
                parts = [self._gather(hidden[i : i + _ROWS], row[0, 1 + i :]) for i in range(0, len(hidden), _ROWS)]
            log_probs = np.concatenate([log_probs, np.concatenate(parts)[start - begin :]])
            start = stop
        return log_probs

    def _gather(self, hidden: Tensor, targets: Tensor) -> np.ndarray:
        logits = self._model.head(hidden).float()
        targets = targets[: len(hidden)]
        target_logits = logits.gather(1, targets[:, None])[:, 0]
        return (target_logits - logits.logsumexp(1)).double().cpu().numpy()

    def choices(self, index: int, choices: Sequence[str], following: Sequence[int]) -> np.ndarray:
        """Return the probability of each word; see the base class."""
        if index not in self._before:
            batch = [index, *(i for i in following if i not in self._before and i != index)][:_INDICES]
            for i, row in zip(batch, self._next_tokens([self._context(i) for i in batch]), strict=True):
                self._before[i] = row
        space = divided_gap(self.document, index)[1]
        rows = [self._encode(space + choice) for choice in choices]
        log_probs = np.array([float(self._before[index][row[0]]) for row in rows])
        if self._faithful:
            return np.array([round(float(p), 5) for p in np.exp(log_probs)])
        longer = [i for i, row in enumerate(rows) if len(row) > 1]
        if longer:
            log_probs[longer] += self._rest([self._context(index)] * len(longer), [rows[i] for i in longer])
        return np.exp(log_probs)

    def replaced(self, index: int) -> None:
        """Remove the distributions that were computed with the former word; see the base class."""
        for i in range(index, index + SIDE + 1):
            self._before.pop(i, None)

    def _context(self, index: int) -> list[int]:
        first = max(0, index - SIDE)
        gap = divided_gap(self.document, index)[0]
        texts = [*pieces(self.document, first, index), gap]
        ids = [token for text in texts for token in self._encode(text)]
        return [self._model.tokenizer.end_of_text, *ids[-self._limit :]]

    @torch.no_grad()
    def _next_tokens(self, contexts: Sequence[list[int]]) -> Tensor:
        """Return the log-probabilities of the token after each context, ``(contexts, vocabulary)``, on the CPU."""
        width = max(map(len, contexts))
        end = self._model.tokenizer.end_of_text
        ids = torch.tensor([[end] * (width - len(row)) + row for row in contexts], device=self._model.device)
        mask = torch.tensor([[i >= width - len(row) for i in range(width)] for row in contexts], device=ids.device)
        with evaluating(self._model.module):
            logits = self._model.logits(ids, mask=None if bool(mask.all()) else mask, last_only=True)[0]
        return logits[:, -1].float().log_softmax(-1).cpu()

    @torch.no_grad()
    def _rest(self, contexts: Sequence[list[int]], rows: Sequence[list[int]]) -> np.ndarray:
        """Return the log-probability of each word's tokens after its first one, given the context, ``(words,)``."""
        texts = [context + row[:-1] for context, row in zip(contexts, rows, strict=True)]
        width = max(map(len, texts))
        end = self._model.tokenizer.end_of_text
        ids = torch.tensor([text + [end] * (width - len(text)) for text in texts], device=self._model.device)
        first = len(contexts[0])
        with evaluating(self._model.module):
            hidden = self._model.hidden(ids)[:, first:]  # padding on the right is seen by no real token
        log_probs = np.zeros(len(rows))
        for i, row in enumerate(rows):
            targets = torch.tensor(row[1:], device=ids.device)
            log_probs[i] = self._gather(hidden[i, : len(targets)], targets).sum()
        return log_probs
