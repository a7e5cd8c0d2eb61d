"""Probabilities of words under a language model that reads from the left.

The distribution before a word serves all words that may stand there, so one forward pass per place is all that is
needed, and several places share one batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from lit_core.lightning.evaluation_mode import evaluating
from lit_core.lm.language_model import LanguageModel
from lit_detect.attacks.document import Document
from lit_detect.attacks.word_scores import SIDE, WordScorer, divided_gap, pieces

#: Places whose distributions are computed together; more would be in vain where words near by are replaced first.
_PLACES = 8
#: Rows of logits that are held at once.
_ROWS = 128


class CausalScorer(WordScorer):
    """Scores words by a causal language model, each text beginning with the end-of-text token.

    Args:
        language_model: The model.
        document: The words.
        max_tokens: Tokens read of a document at once.
        faithful: Whether a word's probability is that of its first token, rounded to five digits, and a document ends
            after ``max_tokens``, as in the released code; else it is that of the whole word, and longer documents are
            read in windows that overlap by half.
    """

    def __init__(self, language_model: LanguageModel, document: Document, max_tokens: int, faithful: bool) -> None:
        self.document, self._model, self._faithful = document, language_model, faithful
        room = language_model.max_length
        self._limit = max_tokens if room is None else min(max_tokens, room - 1)
        self._encoded: dict[str, list[int]] = {"": []}
        self._before: dict[int, Tensor] = {}

    def all_words(self) -> list[float | None]:
        """Return the log-probability of each word; see the base class."""
        rows = [self._encode(piece) for piece in pieces(self.document, 0, len(self.document.words))]
        log_probs = self._token_log_probs([token for row in rows for token in row])
        found, place = list[float | None](), 0
        for number, row in enumerate(rows):
            if number % 2:
                own = log_probs[place : place + (1 if self._faithful else len(row))]
                found.append(self._rounded(float(own.sum())) if len(own) else None)
            place += len(row)
        return found

    def _rounded(self, log_prob: float) -> float:
        """Return what is left of a log-probability where the probability is rounded to five digits."""
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
        """Return the log-probability of each token, ``(n,)``, or of the first ones where the rest is not read."""
        end, found, start = self._model.tokenizer.end_of_text, np.zeros(0), 0
        while start < len(ids) and not (self._faithful and start):
            begin = max(0, start - self._limit // 2) if start else 0
            stop = min(len(ids), begin + self._limit)
            row = torch.tensor([[end, *ids[begin:stop]]], device=self._model.device)
            with evaluating(self._model.module):
                hidden = self._model.hidden(row[:, :-1])[0]
                parts = [self._gather(hidden[i : i + _ROWS], row[0, 1 + i :]) for i in range(0, len(hidden), _ROWS)]
            found = np.concatenate([found, np.concatenate(parts)[start - begin :]])
            start = stop
        return found

    def _gather(self, hidden: Tensor, targets: Tensor) -> np.ndarray:
        logits = self._model.head(hidden).float()
        targets = targets[: len(hidden)]
        chosen = logits.gather(1, targets[:, None])[:, 0]
        return (chosen - logits.logsumexp(1)).double().cpu().numpy()

    def choices(self, place: int, choices: Sequence[str], following: Sequence[int]) -> np.ndarray:
        """Return the probability of each word; see the base class."""
        if place not in self._before:
            wanted = [place, *(i for i in following if i not in self._before and i != place)][:_PLACES]
            for i, row in zip(wanted, self._next_tokens([self._context(i) for i in wanted]), strict=True):
                self._before[i] = row
        space = divided_gap(self.document, place)[1]
        rows = [self._encode(space + choice) for choice in choices]
        found = np.array([float(self._before[place][row[0]]) for row in rows])
        if self._faithful:
            return np.array([round(float(p), 5) for p in np.exp(found)])
        longer = [i for i, row in enumerate(rows) if len(row) > 1]
        if longer:
            found[longer] += self._rest([self._context(place)] * len(longer), [rows[i] for i in longer])
        return np.exp(found)

    def replaced(self, place: int) -> None:
        """Forget what was computed with the former word; see the base class."""
        for i in range(place, place + SIDE + 1):
            self._before.pop(i, None)

    def _context(self, place: int) -> list[int]:
        first = max(0, place - SIDE)
        gap = divided_gap(self.document, place)[0]
        texts = [*pieces(self.document, first, place), gap]
        ids = [token for text in texts for token in self._encode(text)]
        return [self._model.tokenizer.end_of_text, *ids[-self._limit :]]

    @torch.no_grad()
    def _next_tokens(self, contexts: Sequence[list[int]]) -> Tensor:
        """Return the log-probabilities of what follows each context, ``(contexts, vocabulary)``, on the CPU."""
        width = max(map(len, contexts))
        end = self._model.tokenizer.end_of_text
        ids = torch.tensor([[end] * (width - len(row)) + row for row in contexts], device=self._model.device)
        mask = torch.tensor([[i >= width - len(row) for i in range(width)] for row in contexts], device=ids.device)
        with evaluating(self._model.module):
            logits = self._model.logits(ids, mask=None if bool(mask.all()) else mask, last_only=True)[0]
        return logits[:, -1].float().log_softmax(-1).cpu()

    @torch.no_grad()
    def _rest(self, contexts: Sequence[list[int]], rows: Sequence[list[int]]) -> np.ndarray:
        """Return the log-probability of all tokens of each word but the first, given the context and those before."""
        texts = [context + row[:-1] for context, row in zip(contexts, rows, strict=True)]
        width = max(map(len, texts))
        end = self._model.tokenizer.end_of_text
        ids = torch.tensor([text + [end] * (width - len(text)) for text in texts], device=self._model.device)
        first = len(contexts[0])
        with evaluating(self._model.module):
            hidden = self._model.hidden(ids)[:, first:]  # padding on the right is seen by no real token
        found = np.zeros(len(rows))
        for i, row in enumerate(rows):
            targets = torch.tensor(row[1:], device=ids.device)
            found[i] = self._gather(hidden[i, : len(targets)], targets).sum()
        return found
