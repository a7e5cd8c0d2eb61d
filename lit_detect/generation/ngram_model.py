"""An n-gram language model with interpolated Kneser-Ney smoothing, as a generator of another kind.

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

#: Bits of a token in a key of 64 bits, which holds four tokens.
_BITS = np.uint64(16)
_TOKEN = np.uint64(0xFFFF)


@dataclass(frozen=True)
class Order:
    """The n-grams of one order, sorted by context and token.

    Args:
        contexts: Keys of the contexts that occur, in ascending order, uint64 of shape ``(c,)``.
        starts: Start of each context's tokens in ``tokens``, ``(c + 1,)``.
        tokens: The tokens that follow the contexts, ``(n,)``.
        counts: Number of occurrences of each n-gram, or for lower orders of different tokens before it, ``(n,)``.
        discount: Number that is subtracted from each count.
    """

    contexts: np.ndarray
    starts: np.ndarray
    tokens: np.ndarray
    counts: np.ndarray
    discount: float

    def interpolate(self, key: np.uint64, lower_V: np.ndarray) -> np.ndarray:
        """Return the distribution of the token after a context, ``(vocabulary,)``.

        Args:
            key: Key of the context.
            lower_V: Distribution of the next lower order.
        """
        index = int(np.searchsorted(self.contexts, key))
        if index == len(self.contexts) or self.contexts[index] != key:
            return lower_V
        rows = slice(self.starts[index], self.starts[index + 1])
        counts = self.counts[rows]
        total = counts.sum()
        mixed = lower_V * (self.discount * len(counts) / total)
        mixed[self.tokens[rows]] += (counts - self.discount) / total
        return mixed


class NGramLM(LanguageModel):
    """N-gram model with interpolated Kneser-Ney smoothing (Kneser and Ney 1995; Chen and Goodman 1999, Eq. 17 to 20).

    The highest order counts the occurrences of an n-gram, and the lower orders the different tokens before it. Each
    order has one discount, n1 / (n1 + 2 n2), where n1 and n2 are the numbers of n-grams with the counts 1 and 2. The
    lowest order is mixed with the uniform distribution, so every token has a positive probability.

    Args:
        documents: Token ids of each training document.
        tokenizer: The tokenizer, of at most 65,536 tokens.
        order: Number of tokens of the longest n-grams, 2 to 4.

    Raises:
        UserError: If the order or the vocabulary is out of range, or there are no documents.
    """

    def __init__(self, documents: Iterable[Sequence[int]], tokenizer: Tokenizer, order: int = 4) -> None:
        if not 2 <= order <= 4:
            raise UserError(f"order is {order}, but must be from 2 to 4. Set it to such a value.")
        if tokenizer.vocab_size > 1 << int(_BITS):
            raise UserError(
                f"The tokenizer has {tokenizer.vocab_size} tokens, but an n-gram model takes at most 65,536. "
                "Give another tokenizer."
            )
        self.tokenizer, self.order, self.name = tokenizer, order, f"NGramLM[order {order}]"
        end = tokenizer.end_of_text
        padded = [np.array([end] * (order - 1) + list(document) + [end], dtype=np.uint64) for document in documents]
        if not padded:
            raise UserError("An n-gram model needs one or more documents, but got none. Add documents.")
        grams, counts = np.unique(np.concatenate([_keys(row, order) for row in padded]), return_counts=True)
        self.orders: list[Order] = []
        for length in range(order, 1, -1):
            self.orders.insert(0, _order(grams, counts))
            # remove the first token; each different first token counts once
            grams, counts = np.unique(grams & ~(_TOKEN << (np.uint64(length - 1) * _BITS)), return_counts=True)
        size = tokenizer.vocab_size
        seen = np.zeros(size)
        seen[grams.astype(np.int64)] = counts
        discount = _discount(counts)
        self._unigram_V = (np.maximum(seen - discount, 0) + discount * (seen > 0).sum() / size) / seen.sum()
        self.module = nn.Module()
        for i, counted in enumerate(self.orders):
            self.module.register_buffer(f"counts_{i + 2}", torch.from_numpy(counted.counts))

    @property
    def device(self) -> torch.device:
        """The device of the counts, which is the CPU."""
        return torch.device("cpu")

    def new_cache(self) -> list[list[int]] | None:
        """Return an empty cache, which will hold the last tokens of each row."""
        return []

    def keep_rows(self, cache: Any, rows: Sequence[int]) -> Any:
        """Return a cache with some of the rows; see the base class."""
        return [cache[row] for row in rows]

    def logits(
        self, ids_BS: Tensor, cache: Any = None, *, mask: Tensor | None = None, last_only: bool = False
    ) -> tuple[Tensor, Any]:
        """Return the log-probabilities of the next token after each token; see the base class."""
        start = [self.tokenizer.end_of_text] * (self.order - 1)
        before = [list(start) for _ in range(len(ids_BS))] if not cache else cache
        real = torch.ones_like(ids_BS, dtype=torch.bool) if mask is None else mask
        rows, histories = [], []
        for row, (ids, is_real) in enumerate(zip(ids_BS.tolist(), real.tolist(), strict=True)):
            history, log_probs = list(before[row]), []
            for position, token in enumerate(ids):
                history = [*history[1:], token] if is_real[position] else history
                if not last_only or position == len(ids) - 1:
                    log_probs.append(np.log(self.probabilities(history)))
            rows.append(np.stack(log_probs))
            histories.append(history)
        return torch.from_numpy(np.stack(rows)).float(), None if cache is None else histories

    def probabilities(self, history: Sequence[int]) -> np.ndarray:
        """Return the probability of each token after a history, float64 of shape ``(vocabulary,)``.

        Args:
            history: The preceding tokens, at least order - 1 of them.
        """
        probabilities_V = self._unigram_V
        for length, order in enumerate(self.orders, 1):
            key = _keys(np.array(history[-length:], dtype=np.uint64), length)[0]
            probabilities_V = order.interpolate(key, probabilities_V)
        return probabilities_V


def train_ngram(corpora: list[Corpus], tokenizer: str, order: int = 4) -> NGramLM:
    """Return an n-gram model of the training documents of corpora, cleaned as `lit-detect generate` cleans them.

    Args:
        corpora: The corpora, by class name; only documents of the split train of ``generate`` are counted.
        tokenizer: Path of a tokenizer.json or its folder, or a Hugging Face name.
        order: Number of tokens of the longest n-grams, 2 to 4.
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
    """Return the key of each n-gram of a row, with the first token in its highest bits, uint64."""
    keys = np.zeros(len(row) - order + 1, dtype=np.uint64)
    for offset in range(order):
        keys = keys << _BITS | row[offset : len(row) - order + 1 + offset]
    return keys


def _order(grams: np.ndarray, counts: np.ndarray) -> Order:
    contexts, starts = np.unique(grams >> _BITS, return_index=True)
    tokens = (grams & _TOKEN).astype(np.int64)
    return Order(contexts, np.append(starts, len(grams)), tokens, counts.astype(np.float64), _discount(counts))


def _discount(counts: np.ndarray) -> float:
    once, twice = int((counts == 1).sum()), int((counts == 2).sum())
    return once / (once + 2 * twice) if once else 0.5
