"""Log-probabilities, ranks and expected log-probabilities of the tokens of texts under causal language models.

Shape suffixes: B batch, S sequence, D width, N tokens of a batch or chunk, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Literal, TypedDict, get_args

import torch
from torch import Tensor

from lit_core.errors import UserError, check_at_least
from lit_core.lightning.evaluation_mode import evaluating
from lit_core.lm.language_model import LanguageModel
from lit_detect.functional.ranks import ranks_of
from lit_detect.scoring.masked_language_model import MaskedLM

Quantity = Literal["log_prob", "rank", "expected", "variance"]

#: Bytes of float32 logits in memory at once. From 32 MiB on, glibc requests the memory of each tensor from the system
#: page by page, which takes longer than the computation.
_CHUNK_BYTES = 24 << 20


class TokenScores(TypedDict, total=False):
    """Requested quantities of the tokens of one text, each of shape ``(t,)`` on the CPU.

    Attributes:
        log_prob: Natural logarithm of the token's probability, float32.
        rank: 1 plus the number of strictly likelier tokens, int64.
        expected: Mean log-probability of a token drawn from the reference model, float32. It is the negative
            cross-entropy of the two models, or the negative entropy of a single one.
        variance: Variance of the log-probability of a token drawn from the reference model, float32.
    """

    log_prob: Tensor
    rank: Tensor
    expected: Tensor
    variance: Tensor


#: Cached quantities by model, reference model, `max_tokens` and text.
TokenMemory = dict[tuple[LanguageModel, LanguageModel | None, int, str], TokenScores]
_memory: ContextVar[TokenMemory | None] = ContextVar("memory", default=None)


def score_tokens(
    lm: LanguageModel,
    texts: Sequence[str],
    max_tokens: int = 512,
    quantities: Sequence[Quantity] = ("log_prob", "rank"),
    reference_lm: LanguageModel | None = None,
    batch_tokens: int = 1024,
) -> list[TokenScores]:
    """Compute quantities of the tokens of texts, each token given an end-of-text token and the tokens before it.

    A text without tokens is scored as an end-of-text token. The other texts of a batch change the results by rounding
    only. Logits are computed for a few positions at a time, in the model's precision, so memory does not grow with the
    number of tokens times the vocabulary. The models run in evaluation mode, without gradients or autocast, and return
    to their former mode.

    Args:
        lm: The scoring model, which gives log-probabilities and ranks. Outputs beyond the vocabulary of its tokenizer,
            which some models have as padding, are ignored.
        texts: The texts.
        max_tokens: Number of tokens to score from the start of each text, 1 or more, at most what the models take.
        quantities: The quantities to compute.
        reference_lm: The reference model, which draws the tokens of `expected` and `variance`; None for `lm`.
        batch_tokens: Most tokens in a batch, padding included; a longer text is a batch of its own. On a CPU, larger
            batches are slower, since the activations no longer fit into the cache.

    Returns:
        The quantities of each text, in the order of the texts.

    Raises:
        UserError: If a number is out of range, or the models have different tokenizers.
    """
    check_scoring(lm, max_tokens, batch_tokens, reference_lm)
    if (memory := _memory.get()) is not None:
        key = (lm, reference_lm, max_tokens)
        new = [text for text in dict.fromkeys(texts) if (*key, text) not in memory]
        with remembering(None):
            computed = score_tokens(lm, new, max_tokens, get_args(Quantity), reference_lm, batch_tokens)
        memory.update({(*key, text): scores for text, scores in zip(new, computed, strict=True)})
        return [memory[(*key, text)] for text in texts]
    end = lm.tokenizer.end_of_text
    rows = [lm.tokenizer.encode(text)[:max_tokens] or [end] for text in texts]
    scores: list[TokenScores] = [{} for _ in rows]
    with only_reading(lm, reference_lm or lm):
        for indices in batches_by_length([len(row) for row in rows], batch_tokens):
            batch = [rows[i] for i in indices]
            sizes = [len(row) for row in batch]
            for name, values in _score_batch(lm, reference_lm, batch, quantities).items():
                for i, part in zip(indices, values.cpu().split(sizes), strict=True):
                    scores[i][name] = part
    return scores


@contextmanager
def remembering(memory: TokenMemory | None) -> Iterator[None]:
    """Make `score_tokens` compute all quantities of a text and cache them, for several detectors on the same model.

    Args:
        memory: The cache to read and fill; None computes the requested quantities only and caches nothing.
    """
    token = _memory.set(memory)
    try:
        yield
    finally:
        _memory.reset(token)


@contextmanager
def only_reading(*models: LanguageModel | MaskedLM) -> Iterator[None]:
    """Run models in evaluation mode, without gradients or autocast; on exit they return to their former mode."""
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        for model in models:
            stack.enter_context(evaluating(model.module))
            stack.enter_context(torch.autocast(model.device.type, enabled=False))
        yield


def check_scoring(
    lm: LanguageModel, max_tokens: int, batch_tokens: int, reference_lm: LanguageModel | None = None
) -> None:
    """Raise an error if arguments of `score_tokens` are invalid.

    Args:
        lm: The scoring model.
        max_tokens: Number of tokens to score of each text.
        batch_tokens: Most tokens in a batch.
        reference_lm: The reference model, or None.

    Raises:
        UserError: If a number is out of range, or the models have different tokenizers.
    """
    check_at_least(1, max_tokens=max_tokens, batch_tokens=batch_tokens)
    for model in (lm, reference_lm):
        if model is not None and model.max_length is not None and max_tokens > model.max_length:
            raise UserError(
                f"max_tokens is {max_tokens}, but the language model takes {model.max_length} tokens. Lower max_tokens."
            )
    if reference_lm is not None and reference_lm.tokenizer.sha256 != lm.tokenizer.sha256:
        raise UserError(
            f"The two language models have different tokenizers ({lm.tokenizer.sha256[:12]}… and "
            f"{reference_lm.tokenizer.sha256[:12]}…), so their tokens cannot be compared. Choose models of one family."
        )


def batches_by_length(lengths: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Divide rows into batches of similar lengths, the longest first, which need little padding.

    Args:
        lengths: Number of tokens of each row.
        batch_tokens: Most tokens in a batch, padding included; a longer row is a batch of its own.

    Yields:
        The indices of the rows of a batch.

    Example:
        >>> list(batches_by_length([2, 9, 3], batch_tokens=6))
        [[1], [2, 0]]
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    while order:
        size = max(1, batch_tokens // lengths[order[0]])
        yield order[:size]
        order = order[size:]


def _score_batch(
    lm: LanguageModel, reference: LanguageModel | None, rows: Sequence[Sequence[int]], quantities: Sequence[Quantity]
) -> dict[Quantity, Tensor]:
    """Return the requested quantities of the tokens of all rows, each of shape ``(tokens of all rows,)``."""
    hidden_ND = _hidden(lm, rows)
    other_ND = None if reference is None else _hidden(reference, rows)
    targets_N = torch.tensor([token for row in rows for token in row], device=hidden_ND.device)
    vocabulary = lm.tokenizer.vocab_size
    size = max(1, _CHUNK_BYTES // (4 * vocabulary))
    chunks: dict[Quantity, list[Tensor]] = {name: [] for name in quantities}
    for start in range(0, len(targets_N), size):
        chunk = slice(start, start + size)
        logits_NV = _logits(lm, hidden_ND[chunk], vocabulary)
        other_NV = None
        if reference is not None and other_ND is not None:
            other_NV = _logits(reference, other_ND[chunk], vocabulary).to(logits_NV.device)
        for name, values in token_quantities(logits_NV, targets_N[chunk], quantities, other_NV).items():
            chunks[name].append(values)
    return {name: torch.cat(parts) for name, parts in chunks.items()}


def token_quantities(
    logits_NV: Tensor, targets_N: Tensor, quantities: Sequence[Quantity], reference_NV: Tensor | None = None
) -> dict[Quantity, Tensor]:
    """Return quantities of tokens from logits, each of shape ``(n,)``; see `TokenScores`.

    Args:
        logits_NV: Logits of the scoring model, float32 of shape ``(n, vocabulary)``.
        targets_N: Token ids, ``(n,)``.
        quantities: The quantities to compute.
        reference_NV: Logits of the reference model, float32 of the same shape; None for those of the scoring model.
    """
    computed: dict[Quantity, Tensor] = {}
    if "rank" in quantities:
        computed["rank"] = ranks_of(logits_NV, targets_N)
    if not {"log_prob", "expected", "variance"}.intersection(quantities):
        return computed
    log_prob_NV = logits_NV.log_softmax(-1)
    if "log_prob" in quantities:
        computed["log_prob"] = log_prob_NV.gather(-1, targets_N[:, None])[:, 0]
    if {"expected", "variance"}.intersection(quantities):
        drawn_NV = (logits_NV if reference_NV is None else reference_NV).softmax(-1)
        mean_N = torch.linalg.vecdot(drawn_NV, log_prob_NV)
        if "expected" in quantities:
            computed["expected"] = mean_N
        if "variance" in quantities:
            # around the mean: a difference of squares would lose digits where one token is nearly certain
            squares_NV = log_prob_NV.sub_(mean_N[:, None]).square_()
            computed["variance"] = torch.linalg.vecdot(drawn_NV, squares_NV)
    return computed


def _hidden(lm: LanguageModel, rows: Sequence[Sequence[int]]) -> Tensor:
    """Return the hidden state from which each token of the rows is predicted, ``(tokens of all rows, width)``."""
    end, longest = lm.tokenizer.end_of_text, max(map(len, rows))
    # No token of a causal model attends to padding on its right, and attention is faster without a mask.
    ids_BS = torch.tensor([[end, *row[:-1]] + [end] * (longest - len(row)) for row in rows], device=lm.device)
    hidden_BSD = lm.hidden(ids_BS)
    return torch.cat([hidden_SD[: len(row)] for hidden_SD, row in zip(hidden_BSD, rows, strict=True)])


def _logits(lm: LanguageModel, hidden_ND: Tensor, vocabulary: int) -> Tensor:
    """Return the logits, float32 of shape ``(n, vocabulary)``."""
    return lm.head(hidden_ND)[:, :vocabulary].float()
