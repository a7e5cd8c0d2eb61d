"""Sampling of the next token.

Shape suffixes: B batch, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from lit_core.errors import check_above, check_at_least, require
from lit_core.seeds import checked_seed


def choose_tokens(
    logits_BV: Tensor,
    uniform_B: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    repetition_penalty: float = 1.0,
    seen_BV: Tensor | None = None,
) -> Tensor:
    """Choose the next token of each row by repetition penalty, temperature, top-k and top-p, in this order.

    The cumulative distribution runs over the tokens in the order of their ids, which needs no sorting. Tokens that are
    exactly as likely as the last allowed token of top-k or top-p are allowed too.

    Args:
        logits_BV: Logits of shape ``(batch, vocabulary)``, float32.
        uniform_B: A number in [0, 1) per row, at which the cumulative distribution is read.
        temperature: Divisor of the logits; 0 takes the likeliest token.
        top_k: How many of the likeliest tokens may be drawn; None allows all.
        top_p: Probability in (0, 1] that the fewest likeliest tokens to draw from must reach; None allows all.
        repetition_penalty: Divisor of positive and factor of negative logits of tokens in `seen_BV`.
        seen_BV: True for tokens that occurred, of the logits' shape; needed for a penalty other than 1.

    Returns:
        Token ids of shape ``(batch,)``.

    Example:
        >>> choose_tokens(torch.tensor([[1.0, 3.0, 2.0]]), torch.tensor([0.9]), temperature=0)
        tensor([1])
    """
    if repetition_penalty != 1 and seen_BV is not None:
        penalised_BV = torch.where(logits_BV > 0, logits_BV / repetition_penalty, logits_BV * repetition_penalty)
        logits_BV = torch.where(seen_BV, penalised_BV, logits_BV)
    if temperature == 0:
        return logits_BV.argmax(-1)
    # Shifted before the division: a tiny temperature would overflow.
    scaled_BV = (logits_BV - logits_BV.amax(-1, keepdim=True)) / temperature
    if top_k is not None and top_k < scaled_BV.shape[-1]:
        least_B1 = scaled_BV.topk(top_k, dim=-1).values[:, -1:]
        scaled_BV = scaled_BV.masked_fill(scaled_BV < least_B1, -torch.inf)
    probs_BV = scaled_BV.softmax(-1)
    if top_p is not None and top_p < 1:
        falling_BV = _falling(probs_BV)
        last_B1 = (falling_BV.cumsum(-1) < top_p).sum(-1, keepdim=True).clamp(max=probs_BV.shape[-1] - 1)
        probs_BV = probs_BV.masked_fill(probs_BV < falling_BV.gather(-1, last_B1), 0)
    cumulative_BV = probs_BV.cumsum(-1)
    total_B1 = cumulative_BV[:, -1:].contiguous()
    index_B1 = torch.searchsorted(cumulative_BV, uniform_B.to(probs_BV)[:, None] * total_B1, right=True)
    # If rounding makes the threshold equal to the total, take the last token that may be drawn.
    return index_B1.minimum(torch.searchsorted(cumulative_BV, total_B1))[:, 0]


def _falling(values_BV: Tensor) -> Tensor:
    """Return each row's values from the largest to the smallest."""
    if values_BV.device.type != "cpu":
        return values_BV.sort(dim=-1, descending=True).values
    return torch.from_numpy(np.sort(values_BV.numpy(), axis=-1)).flip(-1)  # ten times as fast as torch's


def check_sampling(
    max_new_tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    repetition_penalty: float,
    seed: int,
    batch_size: int,
) -> None:
    """Refuse sampling options out of their range.

    Args:
        max_new_tokens: 1 or more.
        temperature: 0 or more.
        top_k: 1 or more, or None.
        top_p: In (0, 1], or None.
        repetition_penalty: Above 0.
        seed: 0 or more.
        batch_size: 1 or more.

    Raises:
        UserError: If one is not.
    """
    check_at_least(1, max_new_tokens=max_new_tokens, top_k=top_k, batch_size=batch_size)
    check_at_least(0, temperature=temperature)
    require(top_p is None or 0 < top_p <= 1, "top_p", top_p, "above 0 and at most 1, or null for all tokens")
    check_above(0, repetition_penalty=repetition_penalty)
    checked_seed("seed", seed)


def uniforms(seed: int, row: int) -> Iterator[float]:
    """Yield random numbers in [0, 1) for the prompt with index `row`; they depend on the seed and this index only."""
    numbers = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, row])))
    while True:
        yield float(numbers.random(dtype=np.float32))
