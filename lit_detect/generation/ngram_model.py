"""An n-gram language model with interpolated Kneser-Ney smoothing: a generator of quite another kind.

Shape suffixes: B batch, S sequence, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lit_core.corpora import Corpus
from lit_core.errors import UserError
from lit_core.lm.language_model import LanguageModel
from lit_core.lm.tokenizer import Tokenizer
from lit_detect.generation.passages import prose, split_of
from lit_detect.records import SPLITS

#: Bits of a token, of which four fit into a key of 64.
_BITS = np.uint64(16)
_TOKEN = np.uint64(0xFFFF)


@dataclass(frozen=True)
class Order:
    """The n-grams of one order, sorted by context and token.

    Args:
        contexts: Key of each context that occurs, rising, ``(c,)`` uint64.
        starts: Where each context's tokens begin, ``(c + 1,)``.
        tokens: What followed, ``(n,)``.
        counts: How often, or for lower orders how many different tokens stood before, ``(n,)``.
        discount: What is taken from each count.
    """

    contexts: np.ndarray
    starts: np.ndarray
    tokens: np.ndarray
    counts: np.ndarray
    discount: float

    def interpolate(self, key: np.uint64, lower_V: np.ndarray) -> np.ndarray:
        """Return the distribution after a context, given that of the next lower order."""
        place = int(np.searchsorted(self.contexts, key))
        if place == len(self.contexts) or self.contexts[place] != key:
            return lower_V
        rows = slice(self.starts[place], self.starts[place + 1])
        counts = self.counts[rows]
        total = counts.sum()
        mixed = lower_V * (self.discount * len(counts) / total)
        mixed[self.tokens[rows]] += (counts - self.discount) / total
        return mixed


class NGramLM(LanguageModel):
    """An interpolated Kneser-Ney model of tokens (Kneser and Ney 1995; Chen and Goodman 1999, Eq. 17 to 20).

    The highest order counts how often an n-gram occurs, the lower ones how many different tokens stand before it. Each
    order has one discount, n1 / (n1 + 2 n2), of the n-grams that are counted once and twice. The lowest order is mixed
    with the uniform distribution, so that every token has a probability.

    Args:
        documents: Token ids of each training document.
        tokenizer: The tokenizer, of at most 65,536 tokens.
        order: Tokens in the longest n-grams, 2 to 4.

    Raises:
        UserError: If the order or the vocabulary is out of range, or there is nothing to count.
    """

    def __init__(self, documents: Iterable[Sequence[int]], tokenizer: Tokenizer, order: int = 4) -> None:
        if not 2 <= order <= 4:
            raise UserError(f"order is {order}, but must be from 2 to 4; set it so.")
        if tokenizer.vocab_size > 1 << int(_BITS):
            raise UserError(f"The tokenizer has {tokenizer.vocab_size} tokens, but 65,536 are the most; take another.")
        self.tokenizer, self.order, self.name = tokenizer, order, f"NGramLM[order {order}]"
        end = tokenizer.end_of_text
        padded = [np.array([end] * (order - 1) + list(document) + [end], dtype=np.uint64) for document in documents]
        if not padded:
            raise UserError("An n-gram model was given no documents; give some.")
        grams, counts = np.unique(np.concatenate([_keys(row, order) for row in padded]), return_counts=True)
        self.orders: list[Order] = []
        for length in range(order, 1, -1):
            self.orders.insert(0, _order(grams, counts))
            # without the first token; each different one before it counts once
            grams, counts = np.unique(grams & ~(_TOKEN << (np.uint64(length - 1) * _BITS)), return_counts=True)
        size = tokenizer.vocab_size
        seen = np.zeros(size)
        seen[grams.astype(np.int64)] = counts
        discount = _discount(counts)
        self._unigram_V = (np.maximum(seen - discount, 0) + discount * (seen > 0).sum() / size) / seen.sum()
        self.module = nn.Module()
        for number, found in enumerate(self.orders):
            self.module.register_buffer(f"counts_{number + 2}", torch.from_numpy(found.counts))

    @property
    def device(self) -> torch.device:
        """The CPU, where the counts are."""
        return torch.device("cpu")

    def new_cache(self) -> list[list[int]] | None:
        """Return an empty cache: the last tokens of each row."""
        return []

    def keep_rows(self, cache: Any, rows: Sequence[int]) -> Any:
        """Return a cache that holds some rows only; see the base class."""
        return [cache[row] for row in rows]

    def logits(
        self, ids_BS: Tensor, cache: Any = None, *, mask: Tensor | None = None, last_only: bool = False
    ) -> tuple[Tensor, Any]:
        """Return the logarithm of the next token's probabilities after each token; see the base class."""
        start = [self.tokenizer.end_of_text] * (self.order - 1)
        before = [list(start) for _ in range(len(ids_BS))] if not cache else cache
        real = torch.ones_like(ids_BS, dtype=torch.bool) if mask is None else mask
        rows, kept = [], []
        for row, (ids, is_real) in enumerate(zip(ids_BS.tolist(), real.tolist(), strict=True)):
            history, found = list(before[row]), []
            for place, token in enumerate(ids):
                history = [*history[1:], token] if is_real[place] else history
                if not last_only or place == len(ids) - 1:
                    found.append(np.log(self.probabilities(history)))
            rows.append(np.stack(found))
            kept.append(history)
        return torch.from_numpy(np.stack(rows)).float(), None if cache is None else kept

    def probabilities(self, history: Sequence[int]) -> np.ndarray:
        """Return the probability of each token after a history, ``(vocabulary,)`` float64.

        Args:
            history: The last tokens, order - 1 of them or more.
        """
        found = self._unigram_V
        for length, order in enumerate(self.orders, 1):
            found = order.interpolate(_keys(np.array(history[-length:], dtype=np.uint64), length)[0], found)
        return found


def train_ngram(corpora: list[Corpus], tokenizer: str, order: int = 4) -> NGramLM:
    """Count the n-grams of the training documents of corpora, cleaned as `lit-detect generate` cleans them.

    Args:
        corpora: The corpora, by class name; only documents that ``generate`` calls train are counted.
        tokenizer: Path of a tokenizer.json or its folder, or a Hugging Face name.
        order: Tokens in the longest n-grams, 2 to 4.
    """
    encoder = Tokenizer.load(tokenizer)
    return NGramLM(encoder.encode_batch(training_texts(corpora)), encoder, order)


def training_texts(corpora: Sequence[Corpus]) -> list[str]:
    """Return the running prose of each training document of corpora, cleaned."""
    return [
        " ".join(paragraph for run in prose(document.text) for paragraph in run)
        for corpus in corpora
        for document in corpus.documents()
        if split_of(corpus.name, document.id) == SPLITS[0]
    ]


def _keys(row: np.ndarray, order: int) -> np.ndarray:
    """Return each n-gram of a row as one number, the first token in its highest bits."""
    keys = np.zeros(len(row) - order + 1, dtype=np.uint64)
    for place in range(order):
        keys = keys << _BITS | row[place : len(row) - order + 1 + place]
    return keys


def _order(grams: np.ndarray, counts: np.ndarray) -> Order:
    contexts, starts = np.unique(grams >> _BITS, return_index=True)
    tokens = (grams & _TOKEN).astype(np.int64)
    return Order(contexts, np.append(starts, len(grams)), tokens, counts.astype(np.float64), _discount(counts))


def _discount(counts: np.ndarray) -> float:
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    return once / (once + 2 * twice) if once else 0.5
