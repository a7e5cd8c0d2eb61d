"""Coherence of neighbouring sentences, and document vectors weighted by it.

Shape suffixes: B batch, S sentences, W width.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def coherence_weights(vectors_BSD: Tensor) -> Tensor:
    """Return the coherence of each sentence with the next one: (1 + cosine of their vectors) / 2, from 0 to 1.

    FAST takes the probability of a next-sentence model instead.

    Args:
        vectors_BSD: Vector of each sentence, ``(batch, sentences, width)``.

    Returns:
        Weights from 0 to 1, ``(batch, sentences - 1)``.
    """
    return (1 + F.cosine_similarity(vectors_BSD[:, :-1], vectors_BSD[:, 1:], dim=-1)) / 2


def coherence_sum(states_BSW: Tensor, vectors_BSD: Tensor, real_BS: Tensor) -> Tensor:
    """Return the mean over pairs of neighbouring sentences of their concatenated states times the pair's coherence.

    FAST takes the sum. The mean does not make the number of sentences a feature. A single sentence pairs with itself,
    and a text without sentences gives zeros.

    Args:
        states_BSW: States of the sentences, ``(batch, sentences, width)``.
        vectors_BSD: Vectors of the sentences, of which `coherence_weights` computes the coherence.
        real_BS: True for real sentences and False for padding, which follows them, ``(batch, sentences)``.

    Returns:
        Document vectors ``(batch, 2 width)``.
    """
    pairs_BSW = torch.cat((states_BSW[:, :-1], states_BSW[:, 1:]), dim=-1)
    weights_BS = coherence_weights(vectors_BSD) * real_BS[:, 1:]
    followed_B1 = real_BS[:, 1:].sum(dim=1, keepdim=True).clamp(min=1).to(states_BSW)
    sum_BW = (weights_BS[..., None] * pairs_BSW).sum(dim=1) / followed_B1
    single_B1 = (real_BS.sum(dim=1, keepdim=True) == 1).to(states_BSW)
    return sum_BW + single_B1 * states_BSW[:, 0].repeat(1, 2)
