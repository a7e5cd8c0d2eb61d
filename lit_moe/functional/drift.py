"""Routing drift: how much the choice of experts differs between two models on the same tokens.

Shape suffixes: T tokens, k selected experts per token, E routed experts, V token ids.
References: Thérien et al. 2025 (arXiv 2503.05029) for the continual forms; Muennighoff et al. 2024 (OLMoE, arXiv
2409.02060) for saturation, vocabulary specialization and co-activation.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class VocabularySpecialization(NamedTuple):
    """Continual vocabulary specialization, averaged over all tokens and over the token ids that are frequent enough.

    The average over ids is NaN if no id is frequent enough.
    """

    per_occurrence: Tensor
    per_id: Tensor


class Coactivation(NamedTuple):
    """Overlap of two models' co-activation: mean over experts, its chance level, and of each expert, ``(experts,)``.

    The value of an expert that the reference never chose is NaN and is not in the means.
    """

    overlap: Tensor
    chance: Tensor
    by_expert: Tensor


def shared_experts(reference_Tk: Tensor, indices_Tk: Tensor) -> Tensor:
    """Return how many experts two models both chose for each token. Its mean divided by k is the router saturation.

    Args:
        reference_Tk: Experts chosen by the one model, different ones for each token, shape ``(tokens, k)``.
        indices_Tk: Experts chosen by the other model, of the same shape.

    Returns:
        Integers from 0 to k, shape ``(tokens,)``, int64.

    Example:
        >>> shared_experts(torch.tensor([[0, 1], [2, 3]]), torch.tensor([[1, 0], [2, 0]]))
        tensor([2, 1])
    """
    return (reference_Tk[:, :, None] == indices_Tk[:, None, :]).sum((1, 2))


def add_id_counts(counts_VE: Tensor, ids_T: Tensor, indices_Tk: Tensor) -> None:
    """Add to a table, in place, how often each token id was sent to each expert.

    Args:
        counts_VE: Counts so far, shape ``(ids, experts)``, int32; changed.
        ids_T: Token ids of shape ``(tokens,)``.
        indices_Tk: Chosen experts of shape ``(tokens, k)``.
    """
    cells = (ids_T[:, None] * counts_VE.shape[1] + indices_Tk).reshape(-1)
    counts_VE.view(-1).scatter_add_(0, cells, torch.ones_like(cells, dtype=counts_VE.dtype))


def vocabulary_specialization(
    reference_VE: Tensor, counts_VE: Tensor, top_k: int, min_occurrences: int
) -> VocabularySpecialization:
    """Return the share of tokens that go to the expert to which the reference sent their id most often.

    The share of one id is VS(E_i, x) = N^(k)_{x→E_i} / N_x, where the reference determines i; of equally frequent
    experts, the first. A model equal to the reference has the reference's own specialization, not 1.

    Args:
        reference_VE: How often the reference sent each token id to each expert, shape ``(ids, experts)``.
        counts_VE: The same counts for the compared model, on the same tokens.
        top_k: Experts per token.
        min_occurrences: Least number of occurrences of an id in the average over ids.
    """
    n_experts = reference_VE.shape[1]
    first_E = torch.arange(n_experts - 1, -1, -1, device=reference_VE.device)
    usual_V = (reference_VE.long() * n_experts + first_E).argmax(1)
    kept_V = counts_VE.gather(1, usual_V[:, None])[:, 0].long()
    seen_V = reference_VE.sum(1) // top_k
    often_V = seen_V >= max(min_occurrences, 1)
    return VocabularySpecialization(kept_V.sum() / seen_V.sum(), (kept_V[often_V] / seen_V[often_V]).mean())


def pair_counts(indices_Tk: Tensor, n_experts: int) -> Tensor:
    """Return how many tokens chose each pair of experts: all pairs, not only neighbours in the order of preference.

    Args:
        indices_Tk: Chosen experts, different ones for each token, shape ``(tokens, k)``.
        n_experts: Number of routed experts.

    Returns:
        Symmetric counts of shape ``(experts, experts)``, int64; on the diagonal the tokens that chose the expert.

    Example:
        >>> pair_counts(torch.tensor([[0, 2], [2, 0], [1, 2]]), 3)
        tensor([[2, 0, 2],
                [0, 1, 1],
                [2, 1, 3]])
    """
    cells = (indices_Tk[:, :, None] * n_experts + indices_Tk[:, None, :]).reshape(-1)
    counts = torch.zeros(n_experts**2, dtype=torch.int64, device=indices_Tk.device)
    return counts.scatter_add_(0, cells, torch.ones_like(cells)).view(n_experts, n_experts)


def coactivation(pairs_EE: Tensor) -> Tensor:
    """Return P(j given i) = N_ij / N_i, the share of expert i's tokens that also went to expert j.

    Args:
        pairs_EE: Counts of `pair_counts`.

    Returns:
        Shape ``(experts, experts)``: rows sum to k − 1, the diagonal is 0, and so is the row of an expert
        without a token.
    """
    shares_EE = pairs_EE / pairs_EE.diagonal().clamp(min=1)[:, None]
    return shares_EE - shares_EE.diagonal().diag()


def coactivation_overlap(reference_EE: Tensor, pairs_EE: Tensor, top_k: int) -> Coactivation:
    """Return the overlap of co-activation, for expert i: Σ_j min(P_reference(j|i), P(j|i)) / (k − 1).

    It is 1 if the experts have the same partners as before, and 0 if all partners differ. The chance level is the
    overlap of the reference with a uniform choice of partners.

    Args:
        reference_EE: Counts of `pair_counts` for the reference.
        pairs_EE: The same counts for the compared model, on the same tokens.
        top_k: Experts per token, 2 or more.
    """
    before_EE = coactivation(reference_EE)
    uniform = (top_k - 1) / (len(before_EE) - 1)
    chosen_E = reference_EE.diagonal() > 0

    def overlap(after_EE: Tensor) -> Tensor:
        shared_E = torch.minimum(before_EE, after_EE).sum(1) / (top_k - 1)
        return shared_E.where(chosen_E, torch.nan)

    by_expert = overlap(coactivation(pairs_EE))
    return Coactivation(by_expert.nanmean(), overlap(torch.full_like(before_EE, uniform)).nanmean(), by_expert)
