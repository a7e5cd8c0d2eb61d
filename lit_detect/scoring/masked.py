"""What a masked language model says of each token of texts, from a window around it.

Shape suffixes: B batch of positions, S window, N tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from lit_core.errors import UserError
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
    """Score the tokens of texts, each masked in turn and seen from its neighbours.

    A text stands between the tokenizer's start and end tokens, which are seen where a window reaches them and are not
    scored; one without tokens is scored as its end token. The released code of Pu et al. 2023 has windows of 21 tokens
    before and 19 after, pads those at the ends, scores the end token too, and never shows it.

    Args:
        lm: The model.
        texts: The texts.
        max_tokens: Tokens scored of each text, the first ones, 1 or more.
        quantities: What to compute.
        window: Tokens that are seen on each side, 1 or more.
        batch_tokens: Tokens of a batch, padding included.

    Returns:
        The quantities of each text, in the order of the texts.

    Raises:
        UserError: If a number is out of range.
    """
    check_masked(lm, max_tokens, batch_tokens, window)
    tokenizer: Any = lm.tokenizer
    start, end = tokenizer.cls_token_id, tokenizer.sep_token_id
    windows: list[list[int]] = []
    masked: list[int] = []  # place of the mask in each window
    targets: list[int] = []
    sizes: list[int] = []
    for text in texts:
        ids = lm.encode(text)[:max_tokens]
        row = [start, *ids, end]
        places = range(1, len(ids) + 1) if ids else [1]
        sizes.append(len(places))
        for place in places:
            first = max(0, place - window)
            seen = row[first : place + window + 1]
            seen[place - first] = tokenizer.mask_token_id
            windows.append(seen)
            masked.append(place - first)
            targets.append(row[place])
    found: dict[Quantity, Tensor] = {}
    with only_reading(lm):
        for batch in batches_by_length([len(seen) for seen in windows], batch_tokens):
            logits_BV = _logits_at(lm, [windows[i] for i in batch], [masked[i] for i in batch])
            targets_B = torch.tensor([targets[i] for i in batch], device=lm.device)
            for name, values in token_quantities(logits_BV, targets_B, quantities).items():
                found.setdefault(name, torch.empty(len(windows), dtype=values.dtype))[batch] = values.cpu()
    scores: list[TokenScores] = [{} for _ in texts]
    for name, all_values in found.items():
        for score, part in zip(scores, all_values.split(sizes), strict=True):
            score[name] = part
    return scores


def check_masked(lm: MaskedLM, max_tokens: int, batch_tokens: int, window: int = 20) -> None:
    """Refuse arguments of `score_masked` that do not fit.

    Args:
        lm: The model.
        max_tokens: Tokens scored of each text.
        batch_tokens: Tokens of a batch.
        window: Tokens that are seen on each side.

    Raises:
        UserError: If a number is out of range.
    """
    for name, value in (("max_tokens", max_tokens), ("batch_tokens", batch_tokens), ("window", window)):
        if value < 1:
            raise UserError(f"{name} is {value}, but must be 1 or more; raise it.")
    if 2 * window + 1 > lm.max_length:
        raise UserError(
            f"A window of {window} tokens on each side is longer than the {lm.max_length} that {lm.name} takes; choose "
            "another model."
        )


def _logits_at(lm: MaskedLM, windows: Sequence[list[int]], places: Sequence[int]) -> Tensor:
    """Return logits of one place of each window, float32 ``(windows, vocabulary)``."""
    longest = max(map(len, windows))
    pad = lm.tokenizer.pad_token_id or 0
    ids_BS = torch.tensor([seen + [pad] * (longest - len(seen)) for seen in windows], device=lm.device)
    mask_BS = torch.tensor([[1] * len(seen) + [0] * (longest - len(seen)) for seen in windows], device=lm.device)
    with _only_at(lm, torch.tensor(places, device=lm.device)):
        logits: Tensor = lm.module(input_ids=ids_BS, attention_mask=mask_BS).logits
    return logits.flatten(0, -2).float()


@contextmanager
def _only_at(lm: MaskedLM, places_B: Tensor) -> Iterator[None]:
    """Let the output layer compute the logits of one place of each row: ``(rows, 1, vocabulary)``."""
    output: Any = lm.module.get_output_embeddings()  # type: ignore[operator]

    def choose(_: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (inputs[0][torch.arange(len(places_B)), places_B][:, None],)

    handle = output.register_forward_pre_hook(choose)
    try:
        yield
    finally:
        handle.remove()
