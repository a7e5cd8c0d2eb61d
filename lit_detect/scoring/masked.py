"""Log-probabilities and ranks of the tokens of texts under a masked language model, from a window around each.

Shape suffixes: B batch of positions, S window, N tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from lit_core.errors import UserError, check_at_least
from lit_detect.scoring.causal import Quantity, TokenScores, batches_by_length, only_reading, token_quantities
from lit_detect.scoring.masked_language_model import MaskedLM


def score_masked(
    lm: MaskedLM,
    texts: Sequence[str],
    max_tokens: int = 512,
    quantities: Sequence[Quantity] = ("rank",),
    window: int = 20,
    batch_tokens: int = 1024,
) -> list[TokenScores]:
    """Compute quantities of the tokens of texts, each token masked in turn, given the tokens on both sides.

    A window that reaches the start or end of a text contains the tokenizer's start or end token. These are not scored,
    except that a text without tokens is scored as its end token. The released code of Pu et al. 2023 has windows of 21
    tokens before and 19 after, pads those at the ends, scores the end token too, and never puts it into a window.

    Args:
        lm: The model.
        texts: The texts.
        max_tokens: Number of tokens to score from the start of each text, 1 or more.
        quantities: The quantities to compute.
        window: Tokens of context on each side, 1 or more.
        batch_tokens: Most tokens in a batch, padding included.

    Returns:
        The quantities of each text, in the order of the texts.

    Raises:
        UserError: If a number is out of range.
    """
    check_masked(lm, max_tokens, batch_tokens, window)
    tokenizer: Any = lm.tokenizer
    start, end = tokenizer.cls_token_id, tokenizer.sep_token_id
    windows: list[list[int]] = []
    masked: list[int] = []  # position of the mask in each window
    targets: list[int] = []
    sizes: list[int] = []
    for text in texts:
        ids = lm.encode(text)[:max_tokens]
        row = [start, *ids, end]
        positions = range(1, len(ids) + 1) if ids else [1]
        sizes.append(len(positions))
        for position in positions:
            first = max(0, position - window)
            context = row[first : position + window + 1]
            context[position - first] = tokenizer.mask_token_id
            windows.append(context)
            masked.append(position - first)
            targets.append(row[position])
    quantity_values: dict[Quantity, Tensor] = {}
    with only_reading(lm):
        for batch in batches_by_length([len(context) for context in windows], batch_tokens):
            logits_BV = _logits_at(lm, [windows[i] for i in batch], [masked[i] for i in batch])
            targets_B = torch.tensor([targets[i] for i in batch], device=lm.device)
            for name, values in token_quantities(logits_BV, targets_B, quantities).items():
                quantity_values.setdefault(name, torch.empty(len(windows), dtype=values.dtype))[batch] = values.cpu()
    scores: list[TokenScores] = [{} for _ in texts]
    for name, all_values in quantity_values.items():
        for score, part in zip(scores, all_values.split(sizes), strict=True):
            score[name] = part
    return scores


def check_masked(lm: MaskedLM, max_tokens: int, batch_tokens: int, window: int = 20) -> None:
    """Raise an error if arguments of `score_masked` are invalid.

    Args:
        lm: The model.
        max_tokens: Number of tokens to score of each text.
        batch_tokens: Most tokens in a batch.
        window: Tokens of context on each side.

    Raises:
        UserError: If a number is out of range.
    """
    check_at_least(1, max_tokens=max_tokens, batch_tokens=batch_tokens, window=window)
    if 2 * window + 1 > lm.max_length:
        raise UserError(
            f"A window of {window} tokens on each side is longer than the {lm.max_length} tokens that {lm.name} takes. "
            "Choose another model."
        )


def _logits_at(lm: MaskedLM, windows: Sequence[list[int]], positions: Sequence[int]) -> Tensor:
    """Return the logits at one position of each window, float32 of shape ``(windows, vocabulary)``."""
    longest = max(map(len, windows))
    pad = lm.tokenizer.pad_token_id or 0
    ids_BS = torch.tensor([ids + [pad] * (longest - len(ids)) for ids in windows], device=lm.device)
    mask_BS = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids in windows], device=lm.device)
    with _only_at(lm, torch.tensor(positions, device=lm.device)):
        logits: Tensor = lm.module(input_ids=ids_BS, attention_mask=mask_BS).logits
    return logits.flatten(0, -2).float()


@contextmanager
def _only_at(lm: MaskedLM, positions_B: Tensor) -> Iterator[None]:
    """Make the output layer compute the logits at one position of each row only: ``(rows, 1, vocabulary)``."""
    output: Any = lm.module.get_output_embeddings()  # type: ignore[operator]

    def choose(_: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (inputs[0][torch.arange(len(positions_B)), positions_B][:, None],)

    handle = output.register_forward_pre_hook(choose)
    try:
        yield
    finally:
        handle.remove()
